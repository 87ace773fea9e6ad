"""Finding media in batches of prompts, and shortening the prompts."""

from __future__ import annotations

import pytest
import torch

from prunesid.generate.shortened_prompts import Run, find_runs, padding_side, shorten

IMAGE, VIDEO = 50, 60
MARKS = {"image": IMAGE, "video": VIDEO}


def batch(*rows, side="left"):
    """Ids and mask of rows of ids, padded with 0."""
    width = max(map(len, rows))
    pads = [[0] * (width - len(row)) for row in rows]
    left = side == "left"
    ids = [p + r if left else r + p for p, r in zip(pads, rows, strict=True)]
    mask = [
        [0] * len(p) + [1] * len(r) if left else [1] * len(r) + [0] * len(p)
        for p, r in zip(pads, rows, strict=True)
    ]
    return torch.tensor(ids), torch.tensor(mask).bool()


def test_media_are_found_in_their_order_also_side_by_side():
    ids, mask = batch([1, IMAGE, IMAGE, IMAGE, VIDEO, VIDEO, 2], [3, 4], [IMAGE, IMAGE, 5])
    runs = find_runs(ids, mask, MARKS, {"image": [1, 2, 2], "video": [2]})
    assert runs == [
        Run(0, 1, 1, "image", 0),
        Run(0, 2, 2, "image", 1),
        Run(0, 4, 2, "video", 0),
        Run(2, 4, 2, "image", 2),
    ]


def test_padding_that_looks_like_a_placeholder_is_none():
    ids, mask = torch.tensor([[IMAGE, 1, IMAGE]]), torch.tensor([[False, True, True]])
    assert find_runs(ids, mask, MARKS, {"image": [1]}) == [Run(0, 2, 1, "image", 0)]


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({"image": [4]}, "image 0 enters the model as 4 tokens, but prompt 0 has 3 placeholders"),
        ({"image": [2]}, "placeholder for image 1, but the inputs hold 1 of this kind"),
        ({"image": [3, 3]}, "hold 2 media of the kind image, the prompts have placeholders for 1"),
        ({"image": [3], "video": [2]}, "1 media of the kind video, the prompts have .* for 0"),
        ({}, "placeholder for image 0, but the inputs hold 0"),
    ],
)
def test_placeholders_that_do_not_fit_are_refused(widths, message):
    ids, mask = batch([1, IMAGE, IMAGE, IMAGE, 2])
    with pytest.raises(ValueError, match=message):
        find_runs(ids, mask, MARKS, widths)


@pytest.mark.parametrize("side", ["left", "right"])
def test_text_stays_and_media_shrink_on_the_side_they_were_padded(side):
    ids, mask = batch([1, IMAGE, IMAGE, IMAGE, 2, IMAGE, IMAGE, 3], [4, 5], side=side)
    runs = find_runs(ids, mask, MARKS, {"image": [3, 2]})
    short = shorten(mask, runs, [1, 2])
    expected, real = batch([1, IMAGE, 2, IMAGE, IMAGE, 3], [4, 5], side=side)
    assert torch.equal(short.take(ids, 0), expected) and torch.equal(short.mask, real)
    assert short.texts(runs, 0) == [1, 1, 1] and short.texts(runs, 1) == [2]


def test_values_go_with_their_tokens():
    ids, mask = batch([1, IMAGE, IMAGE, 2], [3])
    short = shorten(mask, find_runs(ids, mask, MARKS, {"image": [2]}), [1])
    kinds = (ids == IMAGE).long()
    assert short.take(kinds, -7).tolist() == [[0, 1, 0], [-7, -7, 0]]


def test_a_medium_may_enter_as_nothing_or_as_more():
    ids, mask = batch([1, IMAGE, IMAGE, 2])
    runs = find_runs(ids, mask, MARKS, {"image": [2]})
    assert shorten(mask, runs, [0]).take(ids, 0).tolist() == [[1, 2]]
    assert shorten(mask, runs, [3]).take(ids, 0).tolist() == [[1, IMAGE, IMAGE, IMAGE, 2]]


def test_the_side_of_the_padding():
    assert padding_side(torch.tensor([[1, 1], [1, 1]])) == "left"
    assert padding_side(torch.tensor([[0, 1], [1, 1]])) == "left"
    assert padding_side(torch.tensor([[1, 0], [1, 1]])) == "right"
    with pytest.raises(ValueError, match="both sides"):
        padding_side(torch.tensor([[1, 0], [0, 1]]))
    with pytest.raises(ValueError, match="inside a prompt"):
        padding_side(torch.tensor([[1, 0, 1]]))
    with pytest.raises(ValueError, match="without tokens"):
        padding_side(torch.tensor([[0, 0], [0, 1]]))
