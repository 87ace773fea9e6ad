"""Targets for the vision tower: the content of each 14 x 14 patch, read from the mask."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prunesid.pocket.drawing import Region
from prunesid.pocket.scenes import PATCH, Scene
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    CHARACTERS,
    COLOR_NAMES,
    DIRECTIONS,
    ORDINALS,
    PLACES,
    RANKS,
    SHAPES,
)

KINDS = ("background", *SHAPES, "character", "bar", "slice", *(f"arrow_{d}" for d in DIRECTIONS))
ROLES = (*ORDINALS, *RANKS["bars"], *RANKS["pie"], *(p for row in PLACES for p in row))
_COVER = 0.12  # a patch belongs to a region that fills at least this share of it
_FINE = 7  # foreground masks are supervised at 7 x 7 per patch
PRESENCE = len(SHAPES) * len(COLOR_NAMES) + 2 * len(COLOR_NAMES) + len(CHARACTERS) + len(DIRECTIONS)


@dataclass(frozen=True)
class PatchTargets:
    """Targets of one image; P patches in raster order.

    kind, color, character, role  (P,) int64, 0 for none
    offset             (P, 2) float32 from the patch to its region's center, in units of 64 px
    center             (P, 2) float32 that center as a share of the full image
    magnitude, weight  (P,) float32
    holds_center       (P,) float32 largest share of a center (`center_shares`)
    foreground         (P, 49) float32
    style              int
    presence           (PRESENCE,) float32 the things in the image
    """

    kind: np.ndarray
    color: np.ndarray
    character: np.ndarray
    role: np.ndarray
    offset: np.ndarray
    center: np.ndarray
    magnitude: np.ndarray
    holds_center: np.ndarray
    weight: np.ndarray
    foreground: np.ndarray
    style: int
    presence: np.ndarray


def center_shares(x: float, y: float, rows: int, columns: int, patch: int = PATCH) -> np.ndarray:
    """(rows * columns,) float32 shares of the patches in the point (x, y), in px; they sum to 1.

    The shares are bilinear: a point in the middle of a patch belongs to it alone, and a point on
    the border of two belongs half to each. If each center had one patch, the patch of a center near
    a border would be arbitrary, and counting centers would count such accidents.
    """
    shares = []
    for position, count in ((y, rows), (x, columns)):
        place = min(max(position / patch - 0.5, 0.0), count - 1.0)
        shares.append(np.maximum(0.0, 1.0 - np.abs(np.arange(count) - place)))
    return np.outer(*shares).astype(np.float32).ravel()


def _presence(regions: list[Region]) -> np.ndarray:
    present = np.zeros(PRESENCE, np.float32)
    colors = len(COLOR_NAMES)
    bars = len(SHAPES) * colors
    characters = bars + 2 * colors
    for region in regions:
        if region.kind in SHAPES:
            color = COLOR_NAMES.index(region.color or "")
            present[SHAPES.index(region.kind) * colors + color] = 1
        elif region.kind in ("bar", "slice"):
            offset = 0 if region.kind == "bar" else colors
            present[bars + offset + COLOR_NAMES.index(region.color or "")] = 1
        elif region.character is not None:
            present[characters + CHARACTERS.index(region.character)] = 1
        else:
            arrow = DIRECTIONS.index(region.kind.removeprefix("arrow_"))
            present[characters + len(CHARACTERS) + arrow] = 1
    return present


def patch_targets(
    scene: Scene, mask: np.ndarray, regions: list[Region], patch: int = PATCH
) -> PatchTargets:
    """The targets of every patch of `scene`, from the mask and regions that `draw` returned.

    patch  side of a patch in px, a multiple of 7
    """
    wide, high = (side // patch for side in scene.size)
    patches = wide * high
    tiles = mask.reshape(high, patch, wide, patch).transpose(0, 2, 1, 3).reshape(patches, -1)
    count = len(regions) + 1
    keys = tiles.astype(np.int64) + count * np.arange(patches)[:, None]
    area = np.bincount(keys.ravel(), minlength=patches * count).reshape(patches, count)
    owner = np.zeros(patches, np.int64)
    if regions:
        best = area[:, 1:].argmax(1) + 1
        owner = np.where(area[np.arange(patches), best] >= _COVER * patch * patch, best, 0)

    kinds = np.array([0] + [KINDS.index(r.kind) for r in regions])
    colors = np.array(
        [0] + [0 if r.color is None else 1 + COLOR_NAMES.index(r.color) for r in regions]
    )
    characters = np.array(
        [0] + [0 if r.character is None else 1 + CHARACTERS.index(r.character) for r in regions]
    )
    roles = np.array([0] + [0 if r.role is None else 1 + ROLES.index(r.role) for r in regions])
    centers = np.array([(0.0, 0.0)] + [r.center for r in regions])
    magnitudes = np.array([0.0] + [r.magnitude for r in regions])
    rows, columns = np.divmod(np.arange(patches), wide)
    own = np.stack([columns + 0.5, rows + 0.5], 1) * patch
    center = np.where(owner[:, None] > 0, centers[owner], own)

    holds = np.zeros(patches, np.float32)
    for region in regions:
        holds = np.maximum(holds, center_shares(*region.center, high, wide, patch))
    population = np.bincount(owner, minlength=count)
    cell = patch // _FINE
    fine = tiles.reshape(patches, _FINE, cell, _FINE, cell)[:, :, 0, :, 0].reshape(patches, -1)
    return PatchTargets(
        kind=kinds[owner],
        color=colors[owner],
        character=characters[owner],
        role=roles[owner],
        offset=((center - own) / 64).astype(np.float32),
        center=((center + np.array(scene.origin)) / np.array(scene.full)).astype(np.float32),
        magnitude=magnitudes[owner].astype(np.float32),
        holds_center=holds,
        weight=(1 / np.sqrt(population[owner])).astype(np.float32),
        foreground=(fine > 0).astype(np.float32),
        style=BACKGROUNDS.index(scene.background.style),
        presence=_presence(regions),
    )
