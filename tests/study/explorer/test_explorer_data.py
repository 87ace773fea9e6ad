"""The explorer's data: columns come back as they were, patches lie where the crops do."""

import base64
import json
import zlib
from dataclasses import replace

import numpy as np
import pytest
from builders.synthetic import record

import prunesid
from prunesid.images.medium import Medium
from prunesid.study.explorer.columns import coded
from prunesid.study.explorer.kept import Place, write_kept
from prunesid.study.explorer.views import views_of
from prunesid.study.files.kept import save_kept


def raw(text, kind="u1"):
    return np.frombuffer(zlib.decompress(base64.b64decode(text), -zlib.MAX_WBITS), kind)


def unpacked(column):
    return raw(column["of"], f"<u{column['bytes']}")


@pytest.mark.parametrize("count", [0, 3, 300, 70000])
def test_a_column_comes_back_as_it_was(count):
    values = [f"word {n * 7 % max(1, count)}" for n in range(count)]
    column = coded(values)
    assert [column["values"][n] for n in unpacked(column)] == values


def test_sub_crops_lie_side_by_side_and_name_every_patch_once():
    layout = {"view": "whole", "shown": [0, 0, 2, 4], "sub_crops": {"grid": [1, 2]}}
    whole, crops = views_of([Medium("image", (5, 6, 7), layout)], [(2, 2)] * 3)
    assert whole.tiles == ((0, 0, 0, 2, 2),)
    assert crops.grid == (2, 4) and crops.shown == (0, 0, 2, 4)
    assert crops.tiles == ((4, 0, 0, 2, 2), (8, 0, 2, 2, 2))


def test_a_clip_has_a_view_and_a_picture_per_frame():
    views = views_of([Medium("video", (0, 1, 2), {"view": "center"})], [(2, 3)] * 3)
    assert [(v.picture, v.tiles[0][0]) for v in views] == [(0, 0), (1, 6), (2, 12)]


@pytest.mark.parametrize("method", ["pool", "prumerge", "visionzip"])
@pytest.mark.parametrize("whole", [0, 1])
def test_a_shard_may_keep_its_images_whole(whole, method, tmp_path):
    """Such a shard's file need not say which tokens are merged."""
    images = record(images=1, grid=(4, 4), tokens=16)
    attention = images.cls_attention.mean(dim=1)
    images = replace(images, keys=images.features[:, None])
    images = replace(images, last_keys=images.features, last_attention=attention)
    kept = {whole: prunesid.compress(images, "grid", budget=16)}
    kept[1 - whole] = prunesid.compress(images, method, budget=4)
    paths = [tmp_path / f"{shard}.safetensors" for shard in (0, 1)]
    for shard, path in enumerate(paths):
        save_kept(kept[shard], path)
    places = [Place(shard, (0,), (16,)) for shard in (0, 1)]
    write_kept(tmp_path, "arm", paths, places, [["a"], ["b"]])
    script = (tmp_path / "arm-0.js").read_text().removeprefix('explorer.put("arm-0",')
    block = json.loads(script.removesuffix(");\n"))
    mask = np.unpackbits(raw(block["mask"]), bitorder="little").reshape(2, -1)
    assert mask[whole].all() and not mask[1 - whole].all()
    if method != "visionzip":
        first, last = unpacked(block["ends"])
        assert (last == first) if whole else (first == 0 < last)
