"""Arms: names that tell the difference from the default, equal arms for equal settings."""

import pytest

from prunesid.study.config.arm import VANILLA, make_arm, seeds_of, shared_budgets, text


@pytest.mark.parametrize(
    ("setting", "seed", "name"),
    [
        ({}, 0, "default"),
        ({"budget": 64, "method": "prunesid"}, 0, "default"),
        ({"budget": 128}, 0, "budget-128"),
        ({"grouping": "kmeans"}, 1, "grouping-kmeans_seed-1"),
        ({"grouping": "random", "budget": 192}, 2, "budget-192_grouping-random_seed-2"),
        ({"method": "grid", "budget": 32}, 0, "method-grid_budget-32"),
        ({"num_groups": 8}, 0, "num_groups-8"),
        ({"dynamic": None}, 0, "default"),
        ({"dynamic": "benchmark"}, 0, "dynamic-benchmark"),
        (
            {"dynamic": "calibrated", "budget": 128, "method": "random"},
            1,
            "method-random_budget-128_dynamic-calibrated_seed-1",
        ),
        ({"dynamic": "benchmark", "budget": "all"}, 0, "vanilla"),
        ({"budget": "all"}, 0, "vanilla"),
        ({"method": "vanilla"}, 0, "vanilla"),
        ({"budget": None}, 0, "vanilla"),
    ],
)
def test_an_arm_is_named_by_its_difference_from_the_default(setting, seed, name):
    assert make_arm(setting, seed).name == name


def test_stating_a_default_changes_nothing():
    assert make_arm({"grouping": "psca", "preset": "paper"}) == make_arm({})
    assert make_arm({"grouping": "psca", "budget": 128}).params == {}


def test_what_a_preset_sets_is_a_default_under_it():
    release = make_arm({"preset": "release"})
    assert make_arm({"preset": "release", "score": release.resolved()["score"]}) == release
    assert make_arm({"preset": "release", "score": "abs_v"}).params.keys() == {"preset", "score"}


def test_the_order_of_a_setting_does_not_matter():
    one = make_arm({"grouping": "kmeans", "num_groups": 8})
    other = make_arm({"num_groups": 8, "grouping": "kmeans"})
    assert (one, one.name) == (other, "grouping-kmeans_num_groups-8")


def test_resolved_holds_everything_that_determines_the_tokens():
    resolved = make_arm({"budget": 128}).resolved()
    assert resolved.items() >= {"method": "prunesid", "budget": 128, "seed": 0}.items()
    assert resolved["grouping"] == "psca"
    assert VANILLA.resolved() == {"method": "vanilla", "budget": None, "seed": 0}


def test_a_dynamic_budget_is_part_of_an_arm_and_a_fixed_one_goes_without_saying():
    fixed, dynamic = make_arm({"budget": 128}), make_arm({"budget": 128, "dynamic": "benchmark"})
    assert fixed != dynamic
    assert make_arm({"budget": 128, "dynamic": None}) == fixed
    assert "dynamic" not in fixed.resolved()
    assert dynamic.resolved() == fixed.resolved() | {"dynamic": "benchmark"}
    assert "dynamic" not in dynamic.params


def test_arms_that_share_a_budget_in_the_same_way_share_its_table():
    settings = [
        {"dynamic": rule, "method": method, "budget": budget}
        for rule in (None, "calibrated", "benchmark")
        for method in ("prunesid", "grid")
        for budget in (64, "all")
    ]
    assert shared_budgets(map(make_arm, settings)) == [("benchmark", 64), ("calibrated", 64)]


def test_only_chance_needs_seeds():
    assert [arm.seed for arm in seeds_of({"grouping": "random"}, 3)] == [0, 1, 2]
    assert [arm.name for arm in seeds_of({"grouping": "psca"}, 3)] == ["default"]
    assert seeds_of({"budget": "all"}, 3) == (VANILLA,)


@pytest.mark.parametrize("budget", [0, -1, 1.5, True, "sixty"])
def test_a_budget_is_a_positive_whole_number(budget):
    with pytest.raises(ValueError, match="budget"):
        make_arm({"budget": budget})


def test_errors_name_the_choices():
    with pytest.raises(ValueError, match="prunesid"):
        make_arm({"method": "prunesidd"})
    with pytest.raises(ValueError, match="grouping"):
        make_arm({"groupings": "psca"})
    with pytest.raises(ValueError, match="kmeans"):
        make_arm({"grouping": "k-means"})
    with pytest.raises(ValueError, match="Did you mean 'calibrated'"):
        make_arm({"dynamic": "calibration"})


def test_more_groups_than_tokens_is_an_error():
    with pytest.raises(ValueError, match="K > N"):
        make_arm({"num_groups": 65})
    assert make_arm({"num_groups": 64}).params == {"num_groups": 64}


def test_a_late_arm_drops_inside_the_language_model():
    late, early = make_arm({"method": "fastv", "budget": 128, "k": None}), make_arm({})
    assert (late.name, late.params) == ("method-fastv_budget-128", {})
    assert late.resolved().items() >= {"method": "fastv", "budget": 128, "k": None}.items()
    assert [arm.is_late for arm in (late, early, VANILLA)] == [True, False, False]
    assert [arm.selects for arm in (late, early, VANILLA)] == [False, True, False]
    assert seeds_of({"method": "fastv", "budget": 128}, 3) == (late,)
    assert make_arm({"method": "dart", "count": "flag"}).name == "method-dart_count-flag"


def test_a_late_arm_takes_what_a_study_can_give_it():
    with pytest.raises(ValueError, match="images cannot share its budget"):
        make_arm({"method": "fastv", "dynamic": "benchmark"})
    arm = make_arm({"method": "mustdrop", "rule": "budget", "key_share": 0})
    assert arm.is_late and arm.params == {"key_share": 0, "rule": "budget"}
    with pytest.raises(ValueError, match="Did you mean 'fastv'.*fastv.*prunesid"):
        make_arm({"method": "fastvv"})
    with pytest.raises(ValueError, match="positions"):
        make_arm({"method": "fastv", "position": "original"})


def test_an_arm_that_acts_in_the_encoder_has_a_pass_of_its_own():
    arms = [make_arm({"method": name}) for name in ("tome", "downsample", "prunesid", "fastv")]
    assert [arm.encodes for arm in (*arms, VANILLA)] == [True, True, False, False, False]
    assert [arm.selects for arm in (*arms, VANILLA)] == [True, True, True, False, False]
    assert not any(arm.is_late for arm in arms[:2])
    assert make_arm({"method": "tome", "order": "split"}) == arms[0]
    assert make_arm({"method": "tome", "order": "raster"}).name == "method-tome_order-raster"
    assert seeds_of({"method": "tome"}, 3) == (arms[0],)
    with pytest.raises(ValueError, match="tome acts inside the encoder.*cannot share"):
        make_arm({"method": "tome", "dynamic": "benchmark"})
    with pytest.raises(ValueError, match="Did you mean 'downsample'"):
        make_arm({"method": "downsampl"})
    with pytest.raises(ValueError, match="order, proportional"):
        make_arm({"method": "tome", "schedule": "even"})


def test_values_as_text():
    values = [1, True, None, 0.5, 1.0, "psca"]
    assert [text(value) for value in values] == ["1", "true", "none", "0.5", "1", "psca"]
