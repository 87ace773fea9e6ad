"""A benchmark in parts, each a chain of jobs of its own: for several GPUs, and for less memory."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

from prunesid.core.questions import Question
from prunesid.generate.batches import block_size

T = TypeVar("T")


@dataclass(frozen=True)
class Shard:
    """Part `number` of `of`, counted from 1; as text "2-of-4".

    Parts hold whole blocks of inputs (`generate.batches`), so that the number of parts changes no
    result. Their numbers of blocks differ by one at most. With fewer blocks than parts, some parts
    are empty.
    """

    number: int = 1
    of: int = 1

    def __str__(self) -> str:
        return f"{self.number}-of-{self.of}"

    @staticmethod
    def parse(text: str) -> Shard:
        """The shard that `str` wrote; ValueError for anything else."""
        found = re.fullmatch(r"(\d+)-of-(\d+)", text)
        shard = Shard(*map(int, found.groups())) if found else None
        if shard is None or not 1 <= shard.number <= shard.of:
            raise ValueError(f"{text!r} is no part of a benchmark, such as 2-of-4")
        return shard

    def take(self, inputs: Sequence[T], batch_size: int) -> Sequence[T]:
        """The part's own among all inputs of a benchmark, in their order."""
        block = block_size(batch_size)
        blocks = -(-len(inputs) // block)
        first, last = (blocks * number // self.of for number in (self.number - 1, self.number))
        return inputs[first * block : last * block]

    def questions(self, asked: Sequence[Question], batch_size: int) -> list[Question]:
        """The questions on the part's inputs, in their order."""
        own = set(self.take(list(dict.fromkeys(q.image_id for q in asked)), batch_size))
        return [question for question in asked if question.image_id in own]


WHOLE = Shard()


def shards(count: int) -> tuple[Shard, ...]:
    """All parts of a benchmark that is cut into `count`."""
    return tuple(Shard(number, count) for number in range(1, count + 1))


def by_benchmark(names: Sequence[str], paths: Sequence[str | Path]) -> dict[str, tuple[Path, ...]]:
    """{benchmark: the files of its parts} from those of all of them, benchmark by benchmark."""
    each, rest = divmod(len(paths), len(names))
    if rest:
        raise ValueError(f"{len(paths)} files are not those of parts of {len(names)} benchmarks")
    parts = iter(map(Path, paths))
    return {name: tuple(islice(parts, each)) for name in names}
