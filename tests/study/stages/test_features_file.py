"""Features are written part by part; the file is that of all of them at once."""

from __future__ import annotations

import gc
import weakref

import torch

from prunesid.core.costs import Sizes, Transformer
from prunesid.core.record import VisionRecord
from prunesid.images.medium import Medium
from prunesid.images.records import ImageRecords
from prunesid.study.files.features import read_features, read_head, write_features

SIZES = Sizes(Transformer(2, 8, 16, 2, 2, 4, 3), None, 0)


def part(number, grid, images=2, dtype=torch.bfloat16):
    random = torch.Generator().manual_seed(number)

    def drawn(*shape):
        return torch.randn(images, *shape, generator=random).to(dtype)

    tokens = grid[0] * grid[1]
    names = tuple(f"{number}-{image}" for image in range(images))
    record = VisionRecord(
        drawn(tokens, 6), cls=drawn(6), keys=drawn(2, tokens, 3), hidden={1: drawn(tokens, 6)},
        grid=grid, image_ids=names,
    )  # fmt: skip
    inputs = {name: (Medium("image", (row,), {}),) for row, name in enumerate(names)}
    return ImageRecords((record,), (tuple(range(images)),), inputs, newline=torch.arange(4.0))


def parts():
    return [part(0, (2, 3)), part(1, (3, 3)), part(2, (2, 3), images=1)]


def test_parts_make_the_file_of_the_whole(tmp_path):
    write_features(parts(), SIZES, "all", {}, tmp_path / "parts")
    write_features([ImageRecords.cat(parts())], SIZES, "all", {}, tmp_path / "whole")
    # Heads hold the digest of every field; safetensors orders its metadata as it likes.
    assert read_head(tmp_path / "parts") == read_head(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["parts", "whole"]
    found, head = read_features(tmp_path / "parts")
    assert head.grids == ((2, 3), (3, 3)) and head.members == ((0, 1, 4), (2, 3))
    assert torch.equal(found.newline, torch.arange(4.0))
    for own in parts():
        for name, media in own.inputs.items():
            (row,), (place,) = found.inputs[name][0].rows, media[0].rows
            group = next(g for g, rows in enumerate(head.members) if row in rows)
            number = head.members[group].index(row)
            read, made = found.groups[group], own.groups[0]
            assert read.features.dtype == torch.bfloat16
            for ours, theirs in (
                (read.features, made.features), (read.keys, made.keys), (read.cls, made.cls),
                (read.hidden[1], made.hidden[1]),
            ):  # fmt: skip
                assert torch.equal(ours[number], theirs[place])


def test_no_part_is_held_after_it_is_written(tmp_path):
    seen = []

    def given():
        for number in range(4):
            gc.collect()
            assert all(each() is None for each in seen[:-1])
            made = part(number, (4, 4))
            seen.append(weakref.ref(made.groups[0]))
            yield made
            del made

    write_features(given(), SIZES, "", {}, tmp_path / "features")
    assert len(seen) == 4 and len(read_features(tmp_path / "features")[0].inputs) == 8


def test_a_benchmark_part_without_images_has_a_file(tmp_path):
    write_features([], SIZES, "", {}, tmp_path / "none")
    assert not read_features(tmp_path / "none")[0].inputs
