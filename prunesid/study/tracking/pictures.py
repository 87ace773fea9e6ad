"""Pictures of what an arm keeps of an image, beside what its reference keeps.

A picture is named by a digest of its content, so that none is drawn twice. Images are opened only
for pictures that are missing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image
from safetensors import safe_open

from prunesid.core.files import atomic, digest, file_digest
from prunesid.study.config.arm import Arm
from prunesid.study.files.question_rows import asked_rows
from prunesid.study.files.scenes import FirstCrop
from prunesid.study.provenance.store import Store

GAP = 8
DROPPED = (38, 42, 50)
FADING = 0.82
QUALITY = 85
FILE_TYPE = ".jpg"


class Gallery:
    """Pictures in `folder`, drawn when they are asked for.

    crops  the first crops of each benchmark's images
    find   gives the image of (benchmark, question_id, image_id) as the vision tower sees it, all
           images in one size
    """

    def __init__(
        self,
        folder: Path,
        crops: Mapping[str, Mapping[str, FirstCrop]],
        store: Store,
        find: Callable[[str, str, str], Image.Image],
    ) -> None:
        self.folder = folder
        self._crops = crops
        self._code = file_digest(__file__)
        self._kept = lru_cache(maxsize=16)(lambda key: _read_index(store.get(key)))
        self._rows = lru_cache(maxsize=16)(lambda key: _question_rows(store.get(key)))
        self._image = lru_cache(maxsize=256)(find)

    def path(self, benchmark: str, question_id: str, image_id: str, arms: Iterable[Arm]) -> Path:
        """The picture of an image with what each of the arms keeps of it, from left to right.

        An arm that chooses by image and question shows what it keeps for this question.
        """
        crop = self._crops[benchmark][image_id]

        def place(arm: Arm) -> tuple[str, int] | None:
            """The key of the arm's selections and the row in them; None if it keeps all."""
            if not arm.selects:
                return None
            key = crop.keys[arm.name]
            return key, self._rows(key)[question_id] if arm.asked else crop.row

        shown = [place(arm) for arm in arms]
        name = digest({"image": [benchmark, image_id], "selections": shown, "code": self._code})
        path = self.folder / f"{name}{FILE_TYPE}"
        if not path.is_file():
            image = self._image(benchmark, question_id, image_id)
            kept = [None if each is None else self._kept(each[0])[each[1]] for each in shown]
            drawn = side_by_side([draw_kept(image, index, crop.grid) for index in kept])
            with atomic(path) as part:
                drawn.save(part, quality=QUALITY)
        return path

    def keep_only(self, paths: Iterable[Path]) -> None:
        """Remove the pictures that no run shows any more."""
        wanted = set(paths)
        for path in self.folder.glob(f"*{FILE_TYPE}"):
            if path not in wanted:
                path.unlink()


def draw_kept(image: Image.Image, index: np.ndarray | None, grid: tuple[int, int]) -> Image.Image:
    """`image` with the patches that are not in `index` faded to dark; None keeps all of them.

    index: (N,) numbers of patches in raster order; a number below 0 is no patch (CLS, padding).
    """
    if index is None:
        return image
    rows, columns = grid
    mask = np.zeros(rows * columns, dtype=np.uint8)
    mask[index[index >= 0]] = 255
    shown = Image.fromarray(mask.reshape(rows, columns)).resize(
        image.size, Image.Resampling.NEAREST
    )
    faded = Image.blend(image, Image.new("RGB", image.size, DROPPED), FADING)
    return Image.composite(image, faded, shown)


def side_by_side(images: list[Image.Image]) -> Image.Image:
    """Images of one size from left to right with a white gap between them."""
    width, height = images[0].size
    whole = Image.new("RGB", (len(images) * (width + GAP) - GAP, height), "white")
    for place, image in enumerate(images):
        whole.paste(image, (place * (width + GAP), 0))
    return whole


def _question_rows(path: Path) -> dict[str, int]:
    """{question: its row} of a selection by image and question."""
    return {question: asked.row for asked in asked_rows(path) for question in asked.questions}


def _read_index(path: Path) -> np.ndarray:
    """(B, N) numbers of the kept patches."""
    with safe_open(path, "np") as file:
        index = file.get_tensor("index")
        if "info.selected" not in file.keys():  # noqa: SIM118
            return index
        # Patches that merged tokens stand for.
        selected = file.get_tensor("info.selected")
    raster = np.where(selected, np.arange(selected.shape[1]), -1)
    return np.concatenate([index, raster], axis=1)
