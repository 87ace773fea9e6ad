"""Layers: one way of writing them, for a vision tower of any depth."""

import pytest

from prunesid.study.config.documents import ConfigError
from prunesid.study.config.layers import block, with_blocks

PAPER = [0, "2/24", "8/24", "16/24", -2, -1]


def document(**fields):
    return {
        "vary": [{}],
        "across": [{}],
        "base": {},
        "reference": None,
        "labels": {},
        "except": [],
    } | fields


def test_the_papers_blocks_at_its_depth_and_at_half_of_it():
    assert [block(value, 24) for value in PAPER] == [0, 2, 8, 16, 22, 23]
    assert [block(value, 12) for value in PAPER] == [0, 1, 4, 8, 10, 11]


@pytest.mark.parametrize("depth", [1, 7, 24, 31])
def test_every_form_names_a_block_of_the_tower_in_order(depth):
    shares = [block(f"{n}/24", depth) for n in range(24)]
    assert shares == sorted(shares)
    assert set(shares) <= set(range(depth))
    assert [block(-n, depth) for n in range(depth, 0, -1)] == list(range(depth))
    assert [block(n, depth) for n in range(depth)] == list(range(depth))
    assert block(None, depth) is None


@pytest.mark.parametrize("value", [12, -13, "24/24", "1/0", "last", "8 / 24", 1.0, True])
def test_what_is_no_block_is_an_error_that_names_the_forms(value):
    with pytest.raises(ValueError, match="none of the model's 12 vision blocks.*l/n"):
        block(value, 12)


def test_without_a_depth_only_numbers_from_zero_are_blocks():
    assert block(22, None) == 22
    for value in (-1, "8/24"):
        with pytest.raises(ValueError, match="number of vision blocks"):
            block(value, None)


def test_layers_that_become_the_same_are_run_once():
    resolved = with_blocks(document(vary={"layer": PAPER}), 3)
    assert resolved["vary"] == {"layer": [0, 1, 2]}
    settings = [{"layer": "1/24", "label": "early"}, {"layer": 0}, {"layer": 0, "num_groups": 8}]
    resolved = with_blocks(document(across=settings), 6)
    assert resolved["across"] == [{"layer": 0, "label": "early"}, {"layer": 0, "num_groups": 8}]


def test_what_is_written_twice_stays_to_be_reported():
    resolved = with_blocks(document(vary={"layer": [0, 0, "0/24"]}), 12)
    assert resolved["vary"] == {"layer": [0, 0]}


def test_base_reference_exceptions_and_labels_follow():
    given = document(
        base={"layer": -1},
        **{"except": [{"layer": [-1, 0], "budget": [64]}]},
        reference={"layer": "8/24"},
        labels={"layer": {"-2": "usual", "0": "first", "none": "own"}, "budget": {"64": "few"}},
    )
    resolved = with_blocks(given, 12)
    assert resolved["base"] == {"layer": 11}
    assert resolved["except"] == [{"layer": [11, 0], "budget": [64]}]
    assert resolved["reference"] == {"layer": 4}
    assert resolved["labels"]["layer"] == {"10": "usual", "0": "first", "none": "own"}
    assert resolved["labels"]["budget"] == {"64": "few"}


def test_every_wrong_layer_is_reported():
    with pytest.raises(ConfigError) as caught:
        with_blocks(document(vary={"layer": [99, "9/8"]}, base={"layer": -99}), 12)
    assert len(caught.value.problems) == 3
