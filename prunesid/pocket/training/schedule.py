"""The phases of training: the kinds of images, their number, and the learning rates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from prunesid.pocket.scenes import PATCH, Scene, sample_scene

WARMUP = 60
# Characters are learned last, so the later phases show more printed codes.
READING = (("scene", 0.36), ("code", 0.40), ("chart", 0.12), ("diagram", 0.12))


@dataclass(frozen=True)
class Phase:
    """`steps` batches of `batch` images whose patch grid is `side` x `side`.

    The learning rate is `rate`; it falls linearly to zero over the last `decay` share of the phase.
    `kinds` are the shares of the kinds of image, by default those of `sample_scene`. `backdrop` is
    the share of the patches without any content that the language model sees.
    """

    side: int
    batch: int
    steps: int
    rate: float
    kinds: tuple[tuple[str, float], ...] | None = None
    decay: float = 0.0
    backdrop: float = 1.0

    def scenes(self, rng: np.random.Generator, alike: bool = False) -> list[Scene]:
        """One batch of scenes; with `alike` all of one kind, if the phase names kinds."""
        if self.kinds is None:
            return [sample_scene(rng, self.side * PATCH) for _ in range(self.batch)]
        names, shares = zip(*self.kinds, strict=True)
        drawn = rng.choice(names, 1 if alike else self.batch, p=shares).tolist()
        drawn *= self.batch // len(drawn)
        return [sample_scene(rng, self.side * PATCH, kind) for kind in drawn]


def quick_phases(phases: Sequence[Phase]) -> list[Phase]:
    """The phases with three tiny steps each."""
    return [replace(phase, batch=2, steps=3) for phase in phases]


def steps_from(phases: Sequence[Phase], done: int) -> Iterator[tuple[int, Phase, float]]:
    """(step, phase, learning rate) for every step of a stage from step `done` on.

    Over the stage's first WARMUP steps the rate rises to that of the first phase.
    """
    first = 0
    for phase in phases:
        hold = phase.steps * (1 - phase.decay)
        for step in range(max(done, first), first + phase.steps):
            left = first + phase.steps - step
            falling = min(1.0, left / (phase.steps - hold)) if phase.decay else 1.0
            yield step, phase, phase.rate * min(1.0, (step + 1) / WARMUP) * falling
        first += phase.steps
