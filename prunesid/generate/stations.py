"""Requests to a model on the way from pixels to answers, with the time that each station takes.

    served = serve(adapter, Pruning("prunesid", 64), requests, max_new_tokens=16)
    served.seconds["prefill"]

Nothing is shared between requests, and the answers come from the model's own `generate()`. A batch
goes through each station together:

preprocess  images to the model's inputs, on the CPU
encode      the vision tower; of a method that acts in it, its own pass
select      the choice of tokens; nothing for a method inside the language model
project     the projector, and what the family puts between crops
prefill     the prompt through the language model, to the first token of the answers; a method
            inside the language model chooses here
decode      all further tokens, until the longest answer of the batch is complete

Texts are tokenized before the clock starts.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import StoppingCriteria, StoppingCriteriaList

from prunesid.core.needs import NO_NEEDS
from prunesid.core.record import EMBEDDINGS, Kept
from prunesid.families.adapter import Entering, Prompt
from prunesid.generate.engine import enter
from prunesid.generate.late_forward import DroppedCache, dropping, late_prompts
from prunesid.images.medium import IMAGE, Medium
from prunesid.images.patches import KeptMedium, kept_media
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import encoder_of
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, METHODS, requirements

if TYPE_CHECKING:
    from prunesid.families.base import Adapter
    from prunesid.families.inputs.images_and_clips import Media


@dataclass(frozen=True)
class Pruning:
    """What is done with the visual tokens.

    method     None keeps all
    budget     tokens per image or clip; by name of the request where images share it
    attention  the language model's and the tower's attention kernel, as transformers names it;
               None leaves the model's own
    """

    method: str | None = None
    budget: int | Mapping[str, int] = 0
    params: Mapping[str, Any] = field(default_factory=dict)
    seed: int = 0
    attention: str | None = None

    @property
    def place(self) -> str | None:
        """Where the method acts (`prunesid.methods.registry`); None for one that keeps all."""
        return None if self.method is None else METHODS[self.method].place


@dataclass(frozen=True, eq=False)
class Request:
    """One question.

    name     of its images, unique in a batch; random choices depend on it
    context  the question as a text tower reads it
    """

    name: str
    media: Media
    prompt: Prompt
    context: str = ""


@dataclass(frozen=True, eq=False)
class Served:
    """One batch of requests, answered.

    answers  token ids of each answer, end token included, as long as the longest of the batch
    seconds  of each of `prunesid.core.costs.STATIONS`
    tokens   visual tokens that enter the language model, mean over the requests
    entering  visual tokens that enter each of its layers, and `crops` of the tower: of the first
    steps    tokens that were decoded for the longest answer, the first included
    kv_bytes  the keys and values of all layers when the answers are complete
    memory   bytes at the peak: allocated on a GPU, else resident in the process; None if unknown
    kept     what of each image or clip is kept; nothing for a method inside the language model
    """

    answers: list[list[int]]
    seconds: Mapping[str, float]
    tokens: float
    entering: tuple[int, ...]
    crops: int
    steps: int
    kv_bytes: int
    memory: int | None
    kept: tuple[KeptMedium, ...] = ()


@torch.inference_mode()
def serve(
    adapter: Adapter,
    pruning: Pruning,
    requests: Sequence[Request],
    max_new_tokens: int,
    **generation: Any,
) -> Served:
    """Answer a batch of requests, greedily.

    generation  further arguments of `generate()`, such as min_new_tokens

    ValueError as the method, the family or `generate()` raises it.
    """
    if pruning.attention is not None:
        adapter.model.set_attn_implementation(pruning.attention)
    place, plans = pruning.place, None
    if place == ENCODER:
        if not isinstance(pruning.budget, int):
            raise ValueError("a method in the encoder has one budget for all images")
        plans = adapter.plans(str(pruning.method), pruning.budget, pruning.params)
    owners = [request.name for request in requests for _ in request.media]
    with _peak(adapter.device) as peak:
        clock = _Clock(adapter.device)
        inputs = adapter.preprocess([medium for own in requests for medium in own.media])
        clock.stop("preprocess")
        if plans is None:
            records, kept = adapter.encode(inputs, _needs(pruning), owners), None
        else:
            kept, records = adapter.reduce(inputs, plans, owners)
        clock.stop("encode")
        if place == FEATURES:
            kept = _select(adapter, pruning, requests, records)
        clock.stop("select")
        kept = records.all_tokens() if kept is None else kept
        shown = [records.inputs[request.name] for request in requests]
        rows = [_entering(adapter, kept, media) for media in shown]
        clock.stop("project")
        given = adapter.generation_inputs(
            [
                ([part for part, _ in row], own.prompt)
                for row, own in zip(rows, requests, strict=True)
            ]
        )
        ticks = _Ticks(clock)
        with _dropping(adapter, pruning, given["input_ids"], rows, records):
            output = adapter.model.generate(
                **given,
                do_sample=False,
                max_new_tokens=max_new_tokens,
                return_dict_in_generate=True,
                stopping_criteria=StoppingCriteriaList([ticks]),
                **generation,
            )
        clock.seconds["prefill"] = ticks.times[0] - clock.last
        clock.seconds["decode"] = ticks.times[-1] - ticks.times[0]
    widths = [sum(len(part) for part, _ in row) for row in rows]
    cache = output.past_key_values
    entering = [widths[0]] * len(adapter.decoder.layers)
    if isinstance(cache, DroppedCache):
        entering = cache.state.entering[0].tolist()
    return Served(
        answers=output.sequences[:, given["input_ids"].shape[1] :].tolist(),
        seconds=clock.seconds,
        tokens=sum(widths) / len(requests),
        entering=tuple(entering),
        crops=sum(len(medium.rows) for medium in shown[0]),
        steps=len(ticks.times),
        kv_bytes=_cache_bytes(cache),
        memory=peak(),
        kept=() if place == DECODER else tuple(kept_media(kept, records)),
    )


def _needs(pruning: Pruning) -> Any:
    if pruning.method is None:
        return NO_NEEDS
    asks = requirements if pruning.place == DECODER else requirements_in_crops
    return asks(pruning.method, **pruning.params)


def _select(
    adapter: Adapter, pruning: Pruning, requests: Sequence[Request], records: ImageRecords
) -> Kept:
    method = str(pruning.method)
    asked = requirements(method, **pruning.params).relevance
    if asked:
        encoder = encoder_of(asked[0], adapter.text_tower)
        vectors = {own.name: _vector(adapter, encoder, own) for own in requests}
        records = records.asked({name: name for name in vectors}, vectors, encoder)
    return records.compress(method, budget=pruning.budget, seed=pruning.seed, **pruning.params)


def _vector(adapter: Adapter, encoder: str, request: Request) -> Tensor:
    if encoder == EMBEDDINGS:
        return adapter.question_of([token for text in request.prompt.texts for token in text])
    return adapter.question(encoder, request.context, ())


def _entering(
    adapter: Adapter, kept: Kept, media: Sequence[Medium]
) -> list[tuple[Entering, Medium]]:
    """What enters the language model, with the medium that each part is of."""
    return [(part, medium) for medium in media for part in enter(adapter, kept, [medium])]


def _dropping(
    adapter: Adapter,
    pruning: Pruning,
    ids: Tensor,
    rows: Sequence[Sequence[tuple[Entering, Medium]]],
    records: ImageRecords,
) -> Any:
    if pruning.place != DECODER:
        return nullcontext()
    if not isinstance(pruning.budget, int):
        raise ValueError("a method in the language model has one budget for all images")
    visual = ids == adapter.placeholders[IMAGE]
    method, params = str(pruning.method), pruning.params
    prompts = late_prompts(adapter.decoder, method, pruning.budget, params, visual, rows, records)
    return dropping(adapter.decoder, prompts)


class _Clock:
    """Seconds by station; each stop waits for the device."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}
        self.last = self.now()

    def now(self) -> float:
        if self._device.type != "cpu":
            getattr(torch, self._device.type).synchronize()
        return time.perf_counter()

    def stop(self, station: str) -> None:
        """Give a station the time since the last stop."""
        now = self.now()
        self.seconds[station], self.last = now - self.last, now


class _Ticks(StoppingCriteria):
    """The time of each new token of a batch; it stops nothing."""

    def __init__(self, clock: _Clock) -> None:
        self._clock = clock
        self.times: list[float] = []

    def __call__(self, input_ids: Tensor, scores: Any, **_: Any) -> Tensor:
        self.times.append(self._clock.now())
        return torch.zeros(len(input_ids), dtype=torch.bool, device=input_ids.device)


@contextmanager
def _peak(device: torch.device) -> Iterator[Any]:
    """Yields a function for the bytes at the peak within the block."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        yield lambda: torch.cuda.max_memory_allocated(device)
        return
    status, reset = Path("/proc/self/status"), Path("/proc/self/clear_refs")
    if device.type != "cpu" or not reset.exists():
        yield lambda: None
        return
    reset.write_text("5")  # Linux: the peak of resident memory starts again

    def resident() -> int:
        line = next(own for own in status.read_text().splitlines() if own.startswith("VmHWM"))
        return int(line.split()[1]) * 1024

    yield resident


def _cache_bytes(cache: Any) -> int:
    if isinstance(cache, DroppedCache):
        held = (*cache.state.cache.keys, *cache.state.cache.values)
    else:
        held = tuple(t for layer in cache.layers for t in (layer.keys, layer.values))
    return sum(tensor.nbytes for tensor in held if tensor is not None)
