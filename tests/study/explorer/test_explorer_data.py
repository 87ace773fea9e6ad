"""The explorer's data: columns come back as they were, patches lie where the crops do."""

import base64
import zlib

import numpy as np
import pytest

from prunesid.images.medium import Medium
from prunesid.study.explorer.columns import coded
from prunesid.study.explorer.views import views_of


def unpacked(column):
    data = zlib.decompress(base64.b64decode(column["of"]), -zlib.MAX_WBITS)
    return np.frombuffer(data, f"<u{column['bytes']}")


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
