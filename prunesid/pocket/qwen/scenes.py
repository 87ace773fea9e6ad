"""Images of many sizes and shapes, each shown as it is."""

from __future__ import annotations

import numpy as np

from prunesid.pocket.next import scenes
from prunesid.pocket.next.scenes import Things
from prunesid.pocket.scenes import Scene

TOKEN = 28  # px of an image's side that a merged token covers
# (columns, rows) of merged tokens: from 100 to 400 of them, squares, wide and tall images.
GRIDS = (
    *((10, 10), (14, 14), (20, 20)),
    *((14, 10), (18, 8), (20, 12), (22, 14), (26, 8)),
    *((10, 14), (8, 18), (12, 20), (14, 22), (8, 26)),
)
SMALL = ((6, 6), (8, 6), (6, 8), (10, 5), (5, 10), (8, 8))  # for the start of training
_KINDS = {"scene": 0.5, "code": 0.26, "chart": 0.12, "diagram": 0.12}
THINGS = Things((2, 14), (24, 72), (28, 48), (110, 190), (120, 200), (40, 80), apart=False)
FEW = Things((1, 7), (22, 60), (27, 36), (100, 136), (110, 138), (36, 44), apart=False)


def sample_scene(
    rng: np.random.Generator, kind: str | None = None, grid: tuple[int, int] | None = None
) -> Scene:
    """One image's description; see `prunesid.pocket.scenes.sample_scene` for the kinds.

    grid  (columns, rows) of merged tokens, by default drawn from GRIDS
    """
    if grid is None:
        grid = GRIDS[int(rng.integers(len(GRIDS)))]
    if kind is None:
        kind = str(rng.choice(list(_KINDS), p=list(_KINDS.values())))
    width, height = (TOKEN * side for side in grid)
    things = FEW if grid in SMALL else THINGS
    return scenes.sample_scene(rng, kind, (width, height), things)
