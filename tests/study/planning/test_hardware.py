"""The expected needs of a GPU: more for more work, never below what physics demands."""

from __future__ import annotations

import pytest

from prunesid.families.declared import geometry
from prunesid.study.config.hub_models import hub_models
from prunesid.study.planning.hardware import (
    GPUS,
    gpu_named,
    memory_bytes,
    passes,
    rates,
    weight_bytes,
)
from prunesid.study.planning.rates import SHIPPED, Rates, Work

A100, H100 = GPUS


@pytest.fixture(scope="module")
def shape():
    return geometry(hub_models()["llava-hf/llava-1.5-7b-hf"].config)


@pytest.fixture(scope="module")
def crops():
    return geometry(hub_models()["llava-hf/llava-v1.6-vicuna-7b-hf"].config)


def test_memory_holds_the_weights_and_grows_with_the_batch(shape, crops):
    used = [memory_bytes(shape, "bfloat16", size) for size in (1, 2, 4, 8)]
    assert used[0] > weight_bytes(shape, "bfloat16") == 2 * shape.parameters
    assert used == sorted(used) and used[0] < used[-1]
    assert memory_bytes(shape, "float32", 1) > 1.8 * memory_bytes(shape, "bfloat16", 1)
    assert memory_bytes(crops, "bfloat16", 4) > memory_bytes(shape, "bfloat16", 4)
    # The cache of a batch on all tokens alone: 0.5 MiB per token.
    assert used[3] - used[2] > 4 * 576 * 2**19


def test_a_faster_gpu_takes_less_and_no_less_than_its_peak(shape):
    work = Work("answer", {"tokens": 1e6, "questions": 1000, "passes": 10})
    slow, fast = (
        Rates(rates=rates(shape, gpu, "bfloat16", 8)).seconds(work) for gpu in (A100, H100)
    )
    assert fast < slow
    assert slow > 1e6 * 2 * 6.6e9 / A100.operations


def test_a_pass_reads_all_weights(shape):
    for gpu in GPUS:
        least = rates(shape, gpu, "bfloat16", 8)["answer"]["passes"]
        assert least >= weight_bytes(shape, "bfloat16") / gpu.bandwidth


def test_crops_take_time_in_proportion(shape, crops):
    one, five = (rates(s, A100, "bfloat16", 8)["features"]["images"] for s in (shape, crops))
    assert five == pytest.approx(5 * one, rel=0.05)


def test_every_stage_has_rates_and_those_of_no_gpu_are_the_shipped_ones(shape):
    found = rates(shape, A100, "bfloat16", 8)
    assert found.keys() == SHIPPED.keys()
    assert found["score"] == SHIPPED["score"]


def test_passes_follow_batches_packs_and_answers():
    # Two batches: each a pass over its images, one over their questions, three for the answers.
    assert passes(10, 10, 3, 8, late=False) == 2 * (1 + 1 + 3)
    # 20 questions of 60 tokens fill three packs.
    assert passes(8, 160, 3, 8, late=False) == 1 + 3 * (1 + 3)
    assert passes(10, 20, 3, 8, late=True) == 3 * (1 + 3)
    assert passes(0, 0, 3, 8, late=False) == 0


def test_a_gpu_is_known_by_the_driver_s_name_for_it():
    assert gpu_named("NVIDIA H100 80GB HBM3") is H100
    assert gpu_named("Some other GPU") is A100
