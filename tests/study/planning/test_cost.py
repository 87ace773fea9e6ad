"""Rates: what was measured here scales what was shipped, stage by stage."""

from dataclasses import replace
from pathlib import Path

import pytest

from prunesid.study.config.study import load_study
from prunesid.study.planning.progress import PARTS_AT_ONCE, size_of, stored_bytes
from prunesid.study.planning.rates import SHIPPED, STAGES, Rates, Work, measured, wall_seconds

ROOT = Path(__file__).parents[3]
ANSWER = Work("answer", {"tokens": 64 * 250, "questions": 1000, "jobs": 1})


def test_shipped_rates_stand_in_for_what_was_never_measured():
    rates = measured([])
    assert rates == Rates()
    assert rates.seconds(ANSWER) == pytest.approx(
        64 * 250 * SHIPPED["answer"]["tokens"]
        + 1000 * SHIPPED["answer"]["questions"]
        + SHIPPED["answer"]["jobs"]
    )
    assert not any(rates.is_measured(stage) for stage in STAGES)


def test_finished_work_is_estimated_as_it_went():
    parts = [(ANSWER, 30.0), (Work("answer", {"tokens": 1000, "questions": 10}), 2.0)]
    rates = measured(parts)
    assert sum(rates.seconds(work) for work, _ in parts) == pytest.approx(32.0)
    assert rates.is_measured("answer") and not rates.is_measured("select")


def test_a_machine_twice_as_slow_takes_twice_as_long():
    fast, slow = measured([(ANSWER, 10.0)]), measured([(ANSWER, 20.0)])
    other = Work("answer", {"tokens": 5000, "questions": 7})
    assert slow.seconds(other) == pytest.approx(2 * fast.seconds(other))
    select = Work("select", {"images": 10})
    assert slow.seconds(select) == fast.seconds(select)


def test_work_without_an_amount_takes_no_time_and_no_room():
    for stage in STAGES:
        assert Rates().seconds(Work(stage, {})) == 0
        assert Work(stage, {}).bytes == 0


def test_entries_take_room():
    entries = Work("score", {"entries": 2}).bytes
    assert Work("score", {"questions": 100, "entries": 2}).bytes > entries > 0


def test_cores_help_as_far_as_the_longest_chain_allows():
    assert wall_seconds([], 4) == 0
    assert wall_seconds([10, 10, 10, 10], 1) == 40
    assert wall_seconds([10, 10, 10, 10], 2) == 20
    assert wall_seconds([30, 5, 5], 4) == 30


def test_dropped_features_take_the_room_of_some_parts_of_the_largest_benchmark():
    study = load_study(ROOT / "configs" / "llava-next-7b.yaml")
    sizes = {benchmark.name: size_of(study, benchmark) for benchmark in study.encoded}
    kept = stored_bytes(replace(study, features="keep"), sizes)
    dropped = stored_bytes(study, sizes)
    whole = {name: (sizes[name].images or 0) * own for name, own in kept.items()}
    at_once = sum((sizes[name].images or 0) * own for name, own in dropped.items())
    assert at_once == pytest.approx(max(whole.values()) * PARTS_AT_ONCE / study.shards)
    # A benchmark in fewer parts than lie there at once lies there whole.
    assert max(stored_bytes(replace(study, shards=1), sizes).values()) == max(kept.values())
