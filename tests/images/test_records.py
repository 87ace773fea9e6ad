"""Inputs whose images come in crops, of several sizes, or several at once."""

from __future__ import annotations

import pytest
import torch
from builders.synthetic import record
from hypothesis import given
from hypothesis import strategies as st

from prunesid import compress
from prunesid.images.medium import IMAGE, Medium, grouped, row_names
from prunesid.images.records import ImageRecords, shared_out, whole_index

LAYOUT = {"view": "whole"}


def records(share=None):
    """`a` has crops of 24, 12 and 24 patches, `b` one of 12, `c` two images (24; 12 and 12)."""
    large, small = record(images=3, grid=(4, 6)), record(images=4, tokens=12, seed=5, grid=(3, 4))
    members = ((0, 2, 4), (1, 3, 5, 6))
    inputs = {
        "a": (Medium(IMAGE, (0, 1, 2), LAYOUT),),
        "b": (Medium(IMAGE, (3,), LAYOUT),),
        "c": (Medium(IMAGE, (4,), LAYOUT), Medium(IMAGE, (5, 6), LAYOUT)),
    }
    return ImageRecords((large, small), members, inputs, share)


def test_crops_keep_their_number_whatever_their_grid():
    found = records()
    kept = found.compress("cls_topk", budget=12)
    assert found.sizes == [24, 12, 24, 12, 24, 12, 12]
    assert kept.count.tolist() == [4, 4, 4, 12, 12, 6, 6]
    for record_, rows in zip(found.groups, found.members, strict=True):
        for place, row in enumerate(rows):
            alone = compress(record_.rows([place]), "cls_topk", budget=int(kept.count[row]))
            count = kept.count[row]
            assert torch.equal(kept.tokens[row, :count], alone.tokens[0])
            assert torch.equal(kept.index[row, :count], alone.index[0])
            assert (kept.index[row, count:] == -1).all()
    assert torch.equal(found.gather(kept.index), kept.tokens)


def test_groups_of_patches_are_padded_where_crops_differ_in_size():
    group = records().compress("prunesid", budget=12).info["group"]
    assert group.shape == (7, 24)
    assert (group[[1, 3, 5, 6], 12:] == -1).all() and (group[[0, 2, 4]] >= 0).all()


def test_a_budget_of_a_reference_image_is_scaled_to_each_medium_before_it_is_shared():
    sides = ((4, 5), (6, 10), (20, 20))
    groups = tuple(
        record(tokens=rows * columns, images=1 + (number == 1), seed=number, grid=(rows, columns))
        for number, (rows, columns) in enumerate(sides)
    )
    media = [Medium(IMAGE, rows, LAYOUT) for rows in ((0,), (1, 2), (3,))]
    found = ImageRecords.named(groups, ((0,), (1, 2), (3,)), media, ["a", "b", "c"])
    kept = found.compress("prunesid", budget=192, preset="release_qwen")
    # At least 16; 120 * 192 / 576 for the medium in two crops; T is no upper bound.
    assert kept.count.tolist() == [16, 20, 20, 133]
    large = compress(groups[2], "prunesid", budget=192, preset="release_qwen")
    assert torch.equal(kept.index[3, :133], large.index[0])
    beyond = compress(groups[1], "prunesid", budget=300, preset="release_qwen")
    assert beyond.count.tolist() == [31, 31]
    # Budgets per input are numbers of tokens.
    named = found.compress("prunesid", budget={"a": 9, "b": 30, "c": 50}, preset="release_qwen")
    assert named.count.tolist() == [9, 15, 15, 50]
    with pytest.raises(ValueError, match="budget must be at least 1"):
        compress(groups[0], "prunesid", budget=0, preset="release_qwen")


def test_all_tokens_are_every_patch_in_raster_order():
    found = records()
    kept = found.all_tokens()
    index, count = whole_index(found.sizes)
    assert torch.equal(kept.index, index) and torch.equal(kept.count, count)
    assert torch.equal(kept.tokens[2], found.groups[0].features[1])
    whole = found.compress("prunesid", budget=60)
    assert torch.equal(whole.tokens, kept.tokens) and torch.equal(whole.index, kept.index)


def test_a_budget_meant_for_five_crops_gives_fewer_to_an_image_of_three():
    budgets = records(share=5).budgets(22)
    assert budgets.tolist() == [5, 5, 4, 5, 5, 5, 5]
    assert records().budgets({"a": 9, "b": 2, "c": 4}).tolist() == [3, 3, 3, 2, 4, 2, 2]
    with pytest.raises(ValueError, match="2 tokens cannot be shared among 3 crops"):
        records().budgets(2)


def test_parts_are_one_again():
    found = records()
    again = ImageRecords.cat([_part(found, "a"), _part(found, "b"), _part(found, "c")])
    assert again.sizes == found.sizes
    assert again.inputs == found.inputs
    assert torch.equal(again.all_tokens().tokens, found.all_tokens().tokens)
    with pytest.raises(ValueError, match="'a' occurs twice"):
        ImageRecords.cat([_part(found, "a"), _part(found, "a")])


def _part(whole, name):
    """One input alone, its rows numbered from 0."""
    rows = [row for medium in whole.inputs[name] for row in medium.rows]
    groups, members = [], []
    for record_, own in zip(whole.groups, whole.members, strict=True):
        places = [place for place, row in enumerate(own) if row in rows]
        if places:
            groups.append(record_.rows(places))
            members.append(tuple(rows.index(own[place]) for place in places))
    media = tuple(
        Medium(m.kind, tuple(rows.index(row) for row in m.rows), m.layout)
        for m in whole.inputs[name]
    )
    return ImageRecords(tuple(groups), tuple(members), {name: media}, whole.share)


def test_inputs_of_one_crop_each_are_a_single_record():
    with pytest.raises(ValueError, match="several crops"):
        _ = records().single
    assert _part(records(), "b").single.num_tokens == 12


def test_random_choices_follow_the_input_and_the_crop():
    names = row_names(records().inputs)
    assert [names[row] for row in range(7)] == ["a/0", "a/1", "a/2", "b", "c/0", "c/1", "c/2"]


def test_media_of_one_input_lie_together():
    one, two, three = (Medium(IMAGE, (row,), LAYOUT) for row in range(3))
    assert grouped("aab", (one, two, three)) == {"a": (one, two), "b": (three,)}
    with pytest.raises(ValueError, match="'a' are not next to each other"):
        grouped("aba", (one, two, three))


@given(st.lists(st.integers(1, 40), min_size=1, max_size=8), st.data())
def test_a_budget_is_shared_evenly_and_nothing_is_lost(sizes, data):
    budget = data.draw(st.integers(len(sizes), sum(sizes) + 5))
    shares = shared_out(budget, sizes)
    assert sum(shares) == min(budget, sum(sizes))
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))
    # A crop with room left has at most one token less than any other (the remainder).
    hungry = [share for share, size in zip(shares, sizes, strict=True) if share < size]
    assert not hungry or min(hungry) >= max(shares) - 1
