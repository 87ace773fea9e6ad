"""Latency of pruned models: every arm on the same requests, interleaved, so that drift hits all.

    rows = measure(adapter, {"all": Pruning(), "64": Pruning("prunesid", 64)}, requests)

For each batch size the requests are cut into batches. Each batch goes through all arms before the
next one does, and the arm that comes first changes from batch to batch. One batch per arm warms up
before the first that counts.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from prunesid.generate.stations import Pruning, Request, Served, serve

if TYPE_CHECKING:
    from prunesid.families.base import Adapter

BATCHES = (1, 8, 32)


@dataclass(frozen=True, eq=False)
class Timing:
    """A batch of an arm.

    batch    requests at once
    number   of the batch; the arms' batches of one number have the same requests
    """

    arm: str
    batch: int
    number: int
    requests: tuple[str, ...]
    served: Served


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

    ValueError if there are fewer requests than the largest batch takes.
    """
    if max(batches) > len(requests):
        raise ValueError(
            f"a batch of {max(batches)} needs as many images; there are {len(requests)}"
        )
    names = list(arms)
    for size in batches:
        starts = range(0, len(requests) - size + 1, size)
        for pruning in arms.values():
            serve(adapter, pruning, requests[:size], max_new_tokens, **generation)
        for number in range(rounds * len(starts)):
            start = starts[number % len(starts)]
            some = requests[start : start + size]
            turn = number % len(names)
            for arm in (*names[turn:], *names[:turn]):
                gc.collect()
                served = serve(adapter, arms[arm], some, max_new_tokens, **generation)
                yield Timing(arm, size, number, tuple(own.name for own in some), served)
                if progress is not None:
                    progress(size)
