"""Latency of pruned models: every arm on the same requests, interleaved, so that drift hits all.

    rows = measure(adapter, {"all": Pruning(), "64": Pruning("prunesid", 64)}, requests)

For each batch size the requests are cut into batches. Each batch goes through all arms before the
next one does, and the arm that comes first changes from batch to batch. One batch per arm warms up
before the first that counts. A batch for which memory does not suffice is served in parts, one
after another.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import mul
from typing import TYPE_CHECKING, Any

from prunesid.core.costs import STATIONS
from prunesid.core.memory import Halving
from prunesid.generate.stations import Pruning, Request, Served, serve

if TYPE_CHECKING:
    from prunesid.families.base import Adapter

BATCHES = (1, 8, 32)


@dataclass(frozen=True, eq=False)
class Timing:
    """A batch of an arm.

    batch    requests at once
    number   of the batch; the arms' batches of one number have the same requests
    at_once  the most of them that were served at once; fewer than `batch` where memory did not
             suffice for all
    """

    arm: str
    batch: int
    number: int
    requests: tuple[str, ...]
    served: Served
    at_once: int


def measure(
    adapter: Adapter,
    arms: Mapping[str, Pruning],
    requests: Sequence[Request],
    *,
    batches: Sequence[int] = BATCHES,
    rounds: int = 1,
    max_new_tokens: int = 16,
    progress: Callable[[int], object] | None = None,
    **generation: Any,
) -> Iterator[Timing]:
    """The timings of each arm on each batch of `requests`, in the order in which they ran.

    batches   numbers of requests at once; requests that fill no batch are left out
    rounds    how often all of it is done
    progress  called with the number of requests answered since its last call, warm-up aside

    ValueError if there are fewer requests than the largest batch takes. torch.OutOfMemoryError
    where not even one fits.
    """
    if max(batches) > len(requests):
        raise ValueError(
            f"a batch of {max(batches)} needs as many images; there are {len(requests)}"
        )
    names = list(arms)
    # An arm with fewer tokens takes more at once.
    halvings = {arm: Halving(f"requests of {arm}") for arm in names}

    def clock(arm: str, some: Sequence[Request]) -> tuple[Served, int]:
        parts = halvings[arm].run(
            some,
            lambda own: (serve(adapter, arms[arm], own, max_new_tokens, **generation), len(own)),
        )
        served, counts = zip(*parts, strict=True)
        return together(served, counts), max(counts)

    for size in batches:
        starts = range(0, len(requests) - size + 1, size)
        for arm in names:
            clock(arm, requests[:size])
        for number in range(rounds * len(starts)):
            start = starts[number % len(starts)]
            some = requests[start : start + size]
            turn = number % len(names)
            for arm in (*names[turn:], *names[:turn]):
                gc.collect()
                served, at_once = clock(arm, some)
                names_of = tuple(own.name for own in some)
                yield Timing(arm, size, number, names_of, served, at_once)
                if progress is not None:
                    progress(size)


def together(parts: Sequence[Served], counts: Sequence[int]) -> Served:
    """Parts of a batch, of `counts` requests, that were served one after another."""
    if len(parts) == 1:
        return parts[0]
    peaks = [part.memory for part in parts]
    return replace(
        parts[0],
        answers=[answer for part in parts for answer in part.answers],
        seconds={name: sum(part.seconds[name] for part in parts) for name in STATIONS},
        tokens=sum(map(mul, (part.tokens for part in parts), counts)) / sum(counts),
        steps=sum(part.steps for part in parts),
        kv_bytes=max(part.kv_bytes for part in parts),
        memory=None if None in peaks else max(peak or 0 for peak in peaks),
    )
