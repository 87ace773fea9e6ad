"""Times of arms on batches whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from prunesid.core.costs import STATIONS
from prunesid.study.analysis.comparison import write_csv
from prunesid.study.analysis.latency import arm_times, interval, read_latency, summarize

MACS = {
    "vanilla": {"encoder_macs": 1e9, "selection_macs": 0.0, "llm_macs": 7e9, "total_macs": 8e9},
    "few": {"encoder_macs": 1e9, "selection_macs": 1e8, "llm_macs": 9e8, "total_macs": 2e9},
    "odd": {"encoder_macs": 1e9, "selection_macs": np.nan, "llm_macs": 9e8, "total_macs": 1.9e9},
}
# Milliseconds of each station.
TIMES = {
    "vanilla": (1, 10, 0, 1, 69, 8),
    "few": (1, 10, 4, 1, 5, 8),
    "odd": (1, 10, 4, 1, 5, 8),
}


def timings(count=40, slow=1.0):
    """Batches of every arm; the machine is `slow` times slower in every other batch."""
    lines = []
    for batch in (1, 4):
        for number in range(count // batch):
            factor = slow if number % 2 else 1.0
            for arm, times in TIMES.items():
                seconds = (1e-3 * batch * factor * value for value in times)
                lines.append(
                    {
                        "arm": arm, "attention": "", "batch": batch, "number": number,
                        "questions": batch, "tokens": 576 if arm == "vanilla" else 64, "steps": 3,
                        "kv_bytes": 100 * batch, "memory": np.nan, "same": batch, "machine": "m",
                        "at_once": batch,
                        **dict(zip(STATIONS, seconds, strict=True)),
                    }
                )  # fmt: skip
    return pd.DataFrame(lines)


def lines_of(table):
    return {(line.arm, line.batch, line.what): line for line in table.itertuples()}


def test_medians_speed_ups_and_what_the_count_promised():
    found = lines_of(summarize(timings(), MACS))
    assert found["vanilla", 1, "whole"].p50 == pytest.approx(0.089)
    assert found["few", 1, "whole"].p50 == pytest.approx(0.029)
    first = found["few", 1, "first_token"]
    assert first.p50 == pytest.approx(0.020)
    assert (first.speedup, first.counted) == pytest.approx((4.0, 4.0))
    assert first.achieved == pytest.approx(1.0)
    prefill = found["few", 1, "prefill"]
    assert (prefill.speedup, prefill.counted) == pytest.approx((69 / 5, 70 / 9))
    # Two of three tokens come after the first.
    assert found["few", 1, "token"].p50 == pytest.approx(0.004)
    assert found["few", 1, "token"].per_second == pytest.approx(250)
    assert found["few", 4, "whole"].per_second == pytest.approx(4 / (4 * 0.029))
    assert (found["few", 1, "whole"].same, found["few", 4, "whole"].questions) == (40, 40)
    assert ("vanilla", 1, "select") not in found


def test_a_slow_moment_hits_both_arms_and_leaves_the_speed_up():
    even, uneven = (lines_of(summarize(timings(slow=slow), MACS)) for slow in (1.0, 3.0))
    assert uneven["few", 1, "whole"].p95 > 2 * even["few", 1, "whole"].p95
    for what in ("whole", "first_token", "prefill"):
        same = uneven["few", 1, what].speedup
        assert same == pytest.approx(even["few", 1, what].speedup)
        assert uneven["few", 1, what].speedup_low == pytest.approx(same)


def test_batches_that_were_served_in_parts_say_so():
    data = timings()
    data.loc[(data["batch"] == 4) & (data["arm"] == "vanilla"), "at_once"] = 2
    found = {(line.arm, line.batch): line.at_once for line in summarize(data, {}).itertuples()}
    assert found["vanilla", 4] == 2 and found["few", 4] == 4 and found["vanilla", 1] == 1


def test_a_part_without_a_formula_promises_nothing():
    first = lines_of(summarize(timings(), MACS))["odd", 1, "first_token"]
    assert np.isnan(first.counted) and np.isnan(first.achieved)


def test_intervals_of_quantiles_cover_them_as_often_as_they_say():
    generator = np.random.default_rng(0)
    median = sum(
        low <= np.log(2) <= high
        for low, high in (interval(generator.exponential(size=41), 0.5, 0.9) for _ in range(400))
    )
    assert 0.87 < median / 400 < 0.97
    low, high = interval(np.arange(20.0), 0.95, 0.95)
    assert low < 19 and np.isnan(high)
    assert np.isnan(interval(np.array([1.0]), 0.5, 0.95)).all()


def test_numbers_of_a_published_run(tmp_path):
    write_csv(summarize(timings(), MACS), tmp_path / "latency.csv")
    table = arm_times(read_latency(tmp_path / "latency.csv"), "pope").set_index("arm")
    few = table.loc["few"]
    assert few["benchmark"] == "pope"
    assert few["time_ms"] == pytest.approx(29) and few["prefill_ms"] == pytest.approx(5)
    assert few["select_ms"] == pytest.approx(4) and few["achieved"] == pytest.approx(1)
    assert few["requests_per_second_4"] == pytest.approx(1 / 0.029, rel=1e-4)
    assert table.loc["vanilla", "time_speedup"] == pytest.approx(1)
