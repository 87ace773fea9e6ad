"""The picture of kept patches: which arms and images it shows, and what is known of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from prunesid.core.registry import unknown
from prunesid.study.config.arm import DEFAULT_BUDGET, Arm, make_arm

# Shown where the study has them and its file names none: groups in the presets, then the other
# paradigms (attention, merging, diversity), then baselines; the first of them, at most `MOST`.
USUAL: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("PruneSID: groups", {}),
    ("matched threshold", {"preset": "matched"}),
    ("released code", {"preset": "release"}),
    ("released code", {"preset": "release_qwen"}),
    ("CLS attention", {"method": "cls_topk"}),
    ("VisionZip: attention, merging", {"method": "visionzip"}),
    ("PruMerge: merging", {"method": "prumerge"}),
    ("DivPrune: diversity", {"method": "divprune"}),
    ("uniform grid", {"method": "grid"}),
    ("random groups", {"grouping": "random"}),
)
MOST = 8


@dataclass(frozen=True)
class Patches:
    """`columns` are arms of the study, each with what stands above it; `images` how many rows."""

    benchmark: str
    images: int
    columns: tuple[tuple[str, Arm], ...]


@dataclass(frozen=True, eq=False)
class KeptPatches:
    """The patches that one arm keeps of an image.

    index  (N,) patches in raster order, below 0 for a token that is none (CLS, merged, padding)
    group  (T,) group of every patch, or None for a method without groups
    made   (T,) bool patches that merged tokens stand for, their centers, or None without any
    """

    label: str
    index: NDArray[np.int64]
    group: NDArray[np.int64] | None = None
    made: NDArray[np.bool_] | None = None

    @property
    def centers(self) -> NDArray[np.int64]:
        """The patches that merged tokens stand for, in raster order."""
        none = np.empty(0, dtype=np.int64)
        return none if self.made is None else np.flatnonzero(self.made)


@dataclass(frozen=True)
class FirstCrop:
    """The place of an image's first crop.

    keys  {arm: key of the store} of the selections that it is a row of
    row   its number in these
    grid  rows and columns of its patches
    view  what it shows of the image, see `Medium`
    """

    keys: Mapping[str, str]
    row: int
    grid: tuple[int, int]
    view: str


@dataclass(frozen=True, eq=False)
class Scene:
    """An image as the tower sees it, (S, S, 3) uint8, its patches' grid, and what arms keep.

    `question` is the one that arms which choose by image and question are given; '' without such
    arms.
    """

    image_id: str
    phi: float
    pixels: NDArray[np.uint8]
    grid: tuple[int, int]
    kept: tuple[KeptPatches, ...]
    question: str = ""


def parse_patches(
    document: Mapping[str, Any], benchmarks: Sequence[str], arms: Mapping[str, Sequence[Arm]]
) -> tuple[Patches, list[str]]:
    """The picture that a study's `patches` asks for, and every problem with it.

    document    the field as the schema fills it: benchmark, images, arms (settings, or None)
    benchmarks  those of the study
    arms        {benchmark: its arms}
    """
    problems = []
    measured = [name for name in benchmarks if any(arm.selects for arm in arms[name])]
    benchmark = document["benchmark"] or (measured or benchmarks)[0]
    if benchmark not in benchmarks:
        problems.append(f"benchmark: {unknown('benchmark of this study', benchmark, benchmarks)}")
        return Patches(benchmark, document["images"], ()), problems
    known = {arm.name: arm for arm in arms[benchmark] if arm.selects}
    columns = []
    for setting in document["arms"] or ():
        values = {axis: value for axis, value in setting.items() if axis != "label"}
        try:
            arm = make_arm(values)
        except ValueError as error:
            problems.append(f"arms: {error}")
            continue
        if arm.name not in known:
            choices = [*known] or ["none"]
            problems.append(f"arms: {unknown(f'arm on {benchmark}', arm.name, choices)}")
            continue
        columns.append((str(setting.get("label", arm.name)), arm))
    if document["arms"] is None:
        columns = _usual(known)
    return Patches(benchmark, document["images"], tuple(columns)), problems


def _usual(known: Mapping[str, Arm]) -> list[tuple[str, Arm]]:
    """The usual arms at the default budget as far as a study has them, else its first arms."""
    usual = [(label, make_arm({"budget": DEFAULT_BUDGET, **setting})) for label, setting in USUAL]
    found = [(label, known[arm.name]) for label, arm in usual if arm.name in known]
    return (found or list(known.items()))[:MOST]
