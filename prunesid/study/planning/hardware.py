"""GPU memory and seconds of a study of a real model, by counting.

A pass takes its multiply-adds at the share of the GPU's peak that long passes reach. It takes no
less than starting its kernels and reading the weights. These are guesses until a machine has done
part of the study itself (`prunesid.study.planning.rates.measured`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from prunesid.families.declared import Geometry
from prunesid.study.planning.rates import SHIPPED

VALUE_BYTES = {"float32": 4, "bfloat16": 2, "float16": 2}
# Shares of the peaks that transformers' models on SDPA reach in long passes.
COMPUTE_SHARE, MEMORY_SHARE = 0.4, 0.6
# One layer in eager mode, bound by the CPU that starts its kernels.
LAYER_SECONDS = 0.6e-3
# Decoding and resizing an image and cutting it up, per crop, on the CPU.
CROP_SECONDS = 0.01
# Text tokens of the prompt around an image, and of a question.
BEFORE_TOKENS, QUESTION_TOKENS = 40, 60
# Question tokens of one image that run as one pass (prunesid.generate.engine).
PACKED_TOKENS = 512
# CUDA's context and libraries, and the share of memory that the allocator loses to fragments.
CONTEXT_BYTES, FRAGMENTS = 0.8e9, 0.1
# Loading a checkpoint from disk.
LOAD_BYTES_PER_SECOND = 0.5e9
# What selection takes for an image of 576 tokens, in the mean over methods: a guess, a tenth of a
# CPU thread's time (benchmarks/README.md). It grows with the tokens of the image's crops.
SELECT_SECONDS, SELECT_TOKENS = 0.005, 576


@dataclass(frozen=True)
class Gpu:
    """A GPU as its maker states it: bytes, bytes per second, dense 16-bit operations per second.

    `pattern` occurs in the name that the driver gives it.
    """

    name: str
    pattern: str
    memory: float
    bandwidth: float
    operations: float


GPUS = (
    Gpu("A100-80GB", "A100", 80e9, 2.0e12, 312e12),
    Gpu("H100-80GB", "H100", 80e9, 3.35e12, 989e12),
)


def gpu_named(name: str) -> Gpu:
    """The GPU of a driver's name, or the slowest of the table for one that is not in it."""
    return next((gpu for gpu in GPUS if gpu.pattern in name), GPUS[0])


def weight_bytes(shape: Geometry, dtype: str) -> int:
    """The weights as they lie on a disk or a GPU."""
    return shape.parameters * VALUE_BYTES[dtype]


def memory_bytes(shape: Geometry, dtype: str, batch_size: int, kept_layers: int = 1) -> float:
    """GPU memory at the peak of a study: the larger of encoding and answering on all tokens.

    `kept_layers` counts the block outputs that are read from the tower.
    """
    value = VALUE_BYTES[dtype]
    rows = batch_size * shape.crops
    tower, decoder = shape.tower, shape.decoder
    # Residual stream, queries, keys, values and the FFN of one block, and what is kept.
    per_token = (6 + kept_layers) * tower.width + 2 * tower.ffn
    encoding = rows * shape.tower_tokens * per_token * value
    prefix = shape.tokens + BEFORE_TOKENS
    cached = batch_size * (prefix + PACKED_TOKENS) * decoder.kv_bytes_per_token(value)
    passing = batch_size * prefix * (8 * decoder.width + 3 * decoder.ffn) * value
    packed = batch_size * PACKED_TOKENS * (prefix + PACKED_TOKENS) * value
    answering = cached + max(passing, packed) + 4 * batch_size * shape.vocabulary
    return (weight_bytes(shape, dtype) + max(encoding, answering)) * (1 + FRAGMENTS) + CONTEXT_BYTES


def rates(
    shape: Geometry, gpu: Gpu, dtype: str, batch_size: int
) -> Mapping[str, Mapping[str, float]]:
    """{stage: {what it is spent on: seconds}}, as in `prunesid.study.planning.rates.SHIPPED`.

    Answering costs time for visual tokens, for questions and, at the least, for each pass. Float32
    is taken to run at half the speed of 16 bits (TF32).
    """
    weights = weight_bytes(shape, dtype)
    per_mac = 2 * (2 if dtype == "float32" else 1) / (gpu.operations * COMPUTE_SHARE)
    load = weights / LOAD_BYTES_PER_SECOND + 15
    kernels = shape.tower.layers * LAYER_SECONDS / (batch_size * shape.usual_crops)
    crop = CROP_SECONDS + max(shape.crop_macs * per_mac, kernels)
    encoding = {"jobs": load, "images": shape.usual_crops * crop}
    larger = shape.usual_tokens / SELECT_TOKENS
    per_token = shape.token_macs * per_mac
    answering = {
        "jobs": load,
        "tokens": per_token,
        "questions": QUESTION_TOKENS * per_token,
        "passes": max(
            shape.decoder.layers * LAYER_SECONDS, weights / (gpu.bandwidth * MEMORY_SHARE)
        ),
    }
    # All images and prompts anew; a few tokens are decoded for each answer.
    request = encoding["images"] + shape.usual_tokens * per_token + 4 * answering["passes"]
    return {
        **SHIPPED,
        "measure": {"jobs": load, "requests": request},
        "features": encoding,
        "encode": encoding,
        "questions": {**SHIPPED["questions"], "jobs": load},
        "select": {**SHIPPED["select"], "images": SELECT_SECONDS * larger},
        "answer": answering,
    }


def passes(images: int, questions: int, answer_tokens: int, batch_size: int, late: bool) -> int:
    """Passes of the language model for one arm on a benchmark.

    A batch of images takes one pass over its prompts. Each pack of its questions takes one pass
    more, and one per token of the longest answer. A late arm asks every question on its own.
    """
    if not images or not questions:
        return 0
    if late:
        return math.ceil(questions / batch_size) * (1 + answer_tokens)
    packs = math.ceil(questions / images * QUESTION_TOKENS / PACKED_TOKENS)
    return math.ceil(images / batch_size) * (1 + packs * (1 + answer_tokens))
