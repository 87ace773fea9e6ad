"""A few images as the tower sees them, with the patches and groups that arms keep."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image

from prunesid.families.inputs.square import squared
from prunesid.images.medium import CENTER, PADDED
from prunesid.study.config.kept_patches import Patches
from prunesid.study.files.features import read_head
from prunesid.study.files.kept_info import read_places
from prunesid.study.files.question_rows import asked_rows
from prunesid.study.files.scenes import FirstCrop, KeptPatches, Scene
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.source import Source

# Pixels that a patch is shown with.
PATCH = 14
# CLIP's mean color.
PADDING = (122, 116, 104)


def read_scenes(
    chosen: Patches,
    source: Source,
    information: Path,
    crops: Mapping[str, FirstCrop],
    store: Store,
) -> list[Scene]:
    """The images and what each arm keeps of them, from the files of the stages.

    information  table of `write_information`
    crops        `first_crops` of the chosen benchmark

    An image in crops is shown by its first crop. Arms that choose by image and question are shown
    for the first question on it. Images are those at evenly spaced ranks of phi, from little
    information to much. An arm with seeds shows its first.
    """
    table = pd.read_parquet(information)
    table = table[table["benchmark"] == chosen.benchmark].reset_index(drop=True)
    rows = spaced(table["phi"].to_numpy(np.float64), chosen.images)
    names = [str(table["image_id"][row]) for row in rows]
    scenes = []
    for row, name, picture in zip(rows, names, _open(source, names), strict=True):
        crop = crops[name]
        kept, question = [], ""
        for label, arm in chosen.columns:
            path, place = store.get(crop.keys[arm.name]), crop.row
            if arm.asked:
                first = next(asked for asked in asked_rows(path) if asked.image == name)
                place, question = first.row, first.context
            own = {field: rows[place] for field, rows in read_places(path).items()}
            group = own.get("group", own.get("merged_into"))
            kept.append(KeptPatches(label, own["index"], group, own.get("selected")))
        pixels = as_seen(picture, _size(crop.grid), crop.view)
        phi = float(table["phi"][row])
        scenes.append(Scene(name, phi, pixels, crop.grid, tuple(kept), question))
    return scenes


def first_crops(features: Sequence[Path], selections: Sequence[Path]) -> dict[str, FirstCrop]:
    """{image: its first crop} of a benchmark, from its shards' features and tables of keys."""
    found = {}
    for path, table in zip(features, selections, strict=True):
        head, keys = read_head(path), read_keys(table)
        grids = head.row_grids
        for name, media in head.inputs.items():
            row = media[0].rows[0]
            found[name] = FirstCrop(keys, row, grids[row], media[0].layout["view"])
    return found


def spaced(phi: NDArray[np.float64], count: int) -> list[int]:
    """The images at `count` evenly spaced ranks of phi (n,), the lowest first.

    They are the middles of equal shares of the ranks, since the extremes are not typical.
    """
    order = np.argsort(phi, kind="stable")
    count = min(count, len(order))
    return [int(order[(2 * i + 1) * len(order) // (2 * count)]) for i in range(count)]


def as_seen(image: Image.Image, size: tuple[int, int], view: str) -> NDArray[np.uint8]:
    """An image as the tower sees its first crop: (height, width, 3) of a size in that order.

    view  "center", the middle square (CLIP's own preprocessing); "whole", stretched to the crop; or
          "padded" to a square
    """
    if view == CENTER:
        width, height = image.size
        shortest = min(width, height)
        left, top = (width - shortest) // 2, (height - shortest) // 2
        image = image.crop((left, top, left + shortest, top + shortest))
    if view == PADDED:
        image = squared(image.convert("RGB"), PADDING)
    height, width = size
    return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def _size(grid: tuple[int, int]) -> tuple[int, int]:
    rows, columns = grid
    return PATCH * rows, PATCH * columns


def _open(source: Source, names: Sequence[str]) -> list[Image.Image]:
    task = source.open()
    first = {question.image_id: question for question in reversed(task.questions())}
    return [task.image(first[name]) for name in names]
