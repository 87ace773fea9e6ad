"""The sign-flip test: exact where that can be counted, at its level whatever an image holds."""

import itertools

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from prunesid.study.analysis.metrics import image_sums, statistic
from prunesid.study.analysis.power import detectable
from prunesid.study.analysis.sign_flip import contributions, sign_flip_p
from prunesid.study.analysis.statistics import mcnemar

MEAN, F1, MME = (statistic(name) for name in ("mean", "f1", "mme"))


def counted(parts: np.ndarray, near: float = 1e-9) -> float:
    """p by going through all choices of signs."""
    signs = np.array(list(itertools.product((-1, 1), repeat=len(parts))))
    return float((np.abs(signs @ parts) >= abs(parts.sum()) - near).mean())


@pytest.mark.parametrize("seed", range(40))
def test_it_counts_all_choices_of_signs(seed):
    random = np.random.default_rng(seed)
    count = int(random.integers(1, 13))
    whole = random.integers(-3, 6, count) * 100 / 1371
    assert sign_flip_p(whole) == pytest.approx(counted(whole), rel=1e-9)
    thirds = random.integers(-4, 7, count) / 3
    assert sign_flip_p(thirds) == pytest.approx(counted(thirds), rel=1e-9)
    # Of parts without a common step, sums that all but equal the one found count, too.
    odd = random.normal(0.5, 1, count)
    near = 0.005 * np.sqrt((odd**2).sum())
    assert counted(odd) * (1 - 1e-9) <= sign_flip_p(odd) <= counted(odd, near) * (1 + 1e-9)


def test_sums_of_two_kinds_of_parts_tie_as_on_paper():
    one, other = 0.31, 0.1730000001
    parts = np.array([one, one, one + other, -other, -other, other, 2 * one, -one - other])
    assert sign_flip_p(parts) == pytest.approx(counted(parts), rel=1e-6)


@pytest.mark.parametrize(
    ("gained", "lost"), [(1, 0), (5, 0), (9, 1), (7, 7), (30, 12), (400, 0), (2000, 1500)]
)
def test_single_questions_of_right_and_wrong_get_mcnemars_p(gained, lost):
    parts = np.repeat([0.13, -0.13, 0.0], [gained, lost, 50])
    exact = stats.binomtest(gained, gained + lost).pvalue
    assert sign_flip_p(parts) == pytest.approx(exact, rel=1e-9)
    assert sign_flip_p(-parts) == sign_flip_p(parts)


def test_nothing_differs_from_nothing_and_no_number_from_none():
    assert sign_flip_p(np.zeros(9)) == sign_flip_p(np.array([])) == 1.0
    assert sign_flip_p(np.array([0.1, 0.2, -0.3])) == 1.0
    # Equal on paper, if not as floats: no part at all.
    assert sign_flip_p(np.array([2.0, 3e-15, -1e-15])) == 1.0
    assert np.isnan(sign_flip_p(np.array([1.0, np.nan])))
    assert np.isnan(sign_flip_p(np.array([1.0, np.inf])))


def test_p_falls_smoothly_and_without_a_floor():
    noise = np.random.default_rng(0).normal(size=400)
    noise -= noise.mean()
    sizes = np.arange(0, 24, 0.25)
    p = np.array([sign_flip_p(noise + size * noise.std() / 20) for size in sizes])
    assert p[0] == 1.0
    assert (np.diff(p) < 0).all()
    assert p[-1] < 1e-60
    steps = np.diff(np.log(p[p > 1e-8]))
    assert np.abs(np.diff(steps[4:])).max() < 0.15
    # Near the middle it is what the normal distribution says of the spread under random signs.
    middle = noise + 2 * noise.std() / 20
    normal = 2 * stats.norm.sf(middle.sum() / np.sqrt((middle**2).sum()))
    assert sign_flip_p(middle) == pytest.approx(normal, rel=0.03)


def table_of(right: np.ndarray, statistic_name: str) -> np.ndarray:
    """Sums (images, S) of the answers `right` (images, questions), a yes and a no in turn."""
    images, each = right.shape
    target = np.tile(["yes", "no"], images * each)[: images * each]
    other = np.where(target == "yes", "no", "yes")
    scores = pd.DataFrame({
        "image_id": np.repeat(np.arange(images), each).astype(str),
        "category": np.tile(np.repeat([f"c{i}" for i in range(each // 2)], 2), images),
        "target": target, "answer": np.where(right.ravel(), target, other),
        "score": right.ravel().astype(float), "weight": 1.0,
    })  # fmt: skip
    image = np.repeat(np.arange(images), each)
    return image_sums(scores, statistic(statistic_name), image, images)


@pytest.mark.parametrize("name", ["mean", "weighted", "f1", "mme"])
def test_contributions_add_up_to_the_difference(name):
    random = np.random.default_rng(1)
    own, other = (table_of(random.random((60, 8)) < share, name) for share in (0.8, 0.6))
    chosen = statistic(name)
    parts = contributions(own, other, chosen)
    difference = chosen.scale * (chosen.value(own.sum(axis=0)) - chosen.value(other.sum(axis=0)))
    assert parts.shape == (60,)
    assert parts.sum() == pytest.approx(float(difference), rel=1e-9 if name != "f1" else 0.01)
    assert np.array_equal(contributions(other, own, chosen), -parts)
    assert not contributions(own, own, chosen).any()


def answers(
    random: np.random.Generator, sets: int, images: int, each: int, gain: float = 0.0
) -> np.ndarray:
    """Right answers (sets, 2, images, each) of two arms that are alike but for `gain`.

    What an image is about makes it hard for both, and harder for one arm than for the other; which
    arm that is, is chance.
    """
    hard = random.normal(0, 1, (sets, 1, images, 1))
    own = random.normal(0, 0.7, (sets, 2, images, 1))
    own[:, 0] -= gain
    return random.normal(0, 1, (sets, 2, images, each)) + hard + own < 0.8


@pytest.mark.parametrize(
    ("each", "flip", "simple"), [(1, (0.02, 0.06), (0.02, 0.06)), (7, (0.035, 0.06), (0.08, 0.25)),
                                 (31, (0.035, 0.06), (0.25, 0.6))],
)  # fmt: skip
def test_it_rejects_at_its_level_for_any_number_of_questions_per_image(each, flip, simple):
    """3,000 studies without a difference; taking questions for independent rejects too many."""
    right = answers(np.random.default_rng(each), 3000, 120, each)
    swapped = right.sum(axis=3)[..., None].astype(float)
    counts = np.full((120, 1), float(each))
    found, taken_apart = [], []
    for own, sums in zip(right, swapped, strict=True):
        one, other = (np.concatenate([arm, counts], axis=1) for arm in sums)
        found.append(sign_flip_p(contributions(one, other, MEAN)))
        taken_apart.append(mcnemar(own[0].ravel(), own[1].ravel()))
    assert flip[0] <= np.mean(np.array(found) < 0.05) <= flip[1]
    assert np.mean(np.array(found) < 0.005) <= 0.008
    assert simple[0] <= np.mean(np.array(taken_apart) < 0.05) <= simple[1]


@pytest.mark.parametrize("name", ["mean", "f1", "mme"])
def test_few_images_and_ratios_keep_the_level(name):
    right = answers(np.random.default_rng(2), 600, 24, 8)
    chosen = statistic(name)
    found = [
        sign_flip_p(contributions(*(table_of(arm, name) for arm in own), chosen)) for own in right
    ]
    assert 0.02 <= np.mean(np.array(found) < 0.05) <= 0.075


def test_the_level_holds_where_an_arm_fails_on_few_images_and_gains_on_many():
    """Alike on average is all that is true here: the parts are skewed."""
    parts = np.random.default_rng(3).choice([1.0, -7.0], p=[7 / 8, 1 / 8], size=(3000, 100))
    assert 0.035 <= np.mean([sign_flip_p(own) < 0.05 for own in parts]) <= 0.075


@pytest.mark.parametrize("images", [12, 40, 120])
def test_a_detectable_difference_is_detected_as_often_as_promised(images):
    random = np.random.default_rng(images)
    parts = random.normal(detectable(1 / np.sqrt(images), images), 1, (600, images))
    assert 0.75 <= np.mean([sign_flip_p(own) < 0.05 for own in parts]) <= 0.85


def test_it_has_the_power_of_a_test_of_means():
    right = answers(np.random.default_rng(4), 600, 120, 7, gain=0.35).sum(axis=3).astype(float)
    sums = np.stack([right, np.full_like(right, 7)], axis=3)
    found = [sign_flip_p(contributions(*own, MEAN)) for own in sums]
    student = [stats.ttest_rel(*own).pvalue for own in right]
    power = np.mean(np.array(found) < 0.05)
    assert power > 0.5
    assert power == pytest.approx(np.mean(np.array(student) < 0.05), abs=0.03)
