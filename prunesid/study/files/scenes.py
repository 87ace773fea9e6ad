"""Images as a picture of kept patches shows them: their pixels, and what arms keep of them."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


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

    keys  {arm: key in the store} of the selections
    row   the crop's row in each of them
    grid  rows and columns of its patches
    view  what it shows of the image, see `prunesid.images.medium.Medium`
    """

    keys: Mapping[str, str]
    row: int
    grid: tuple[int, int]
    view: str


@dataclass(frozen=True, eq=False)
class Scene:
    """An image as the tower sees it, (S, S, 3) uint8, its patches' grid, and what arms keep.

    `question` is given to the arms that choose by image and question; '' without such arms.
    """

    image_id: str
    phi: float
    pixels: NDArray[np.uint8]
    grid: tuple[int, int]
    kept: tuple[KeptPatches, ...]
    question: str = ""
