"""Times of the arms: quantiles with intervals, speed-ups, and how much of the count became time.

A speed-up compares an arm with all tokens on the same batch, so that a slow moment of the machine,
which hits both, cancels out. It is the median of these ratios. Intervals are those of a quantile
(the binomial test's), which assume no distribution; where there are too few batches for a bound,
it is missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import quantile_test

from prunesid.core.costs import STATIONS
from prunesid.study.config.arm import ALL_TOKENS

WHOLE, FIRST, TOKEN = "whole", "first_token", "token"
WHATS = (*STATIONS, FIRST, TOKEN, WHOLE)
COMPARED = ("encode", "prefill", FIRST, WHOLE)
# Multiply-adds are counted for these: all up to the first token, and the language model's part.
COUNTED = {FIRST: "total_macs", "prefill": "llm_macs"}
KEYS = ["arm", "attention", "batch"]
FACTS = ("tokens", "kv_bytes", "memory", "same", "questions")


def read_timings(path: Path) -> pd.DataFrame:
    """The lines of `stages.measure.measure_arms`."""
    return pd.read_csv(path, keep_default_na=False, na_values={"memory": [""]})


def read_latency(path: Path) -> pd.DataFrame:
    """The lines of `summarize` in a file."""
    table = pd.read_csv(path, keep_default_na=False, na_values=[""])
    return table.assign(attention=table["attention"].astype(object).fillna(""))


def summarize(
    timings: pd.DataFrame, macs: Mapping[str, Mapping[str, float]], confidence: float = 0.95
) -> pd.DataFrame:
    """A line per arm, attention kernel, batch size and `what`, in the order of the timings.

    timings  lines of `stages.measure.measure_arms`
    macs     {arm: its line of costs.csv}; NaN where there is no formula

    what      a station, or `first_token`: encode to prefill; `whole`: all stations; `token`: a
              decoded token after the first
    p50, p50_low, p50_high, p95, p95_low, p95_high  seconds of a batch
    speedup, speedup_low, speedup_high  ratio of the time with all tokens to this one
    counted   the same ratio of multiply-adds, for what `COUNTED` names; `achieved`: speedup /
              counted
    per_second, per_second_low, per_second_high  requests for `whole`, tokens for `token`
    batches   how many were clocked
    tokens, kv_bytes, memory  means over batches; same, questions: sums over batches
    at_once   the fewest requests of a batch that were served together
    machine   as the timings have it
    """
    data = timings.assign(
        **{
            FIRST: timings[["encode", "select", "project", "prefill"]].sum(axis=1),
            WHOLE: timings[list(STATIONS)].sum(axis=1),
            # A batch whose answers are one token long has decoded none after it.
            TOKEN: timings["decode"] / (timings["steps"] - 1).where(timings["steps"] > 1),
        }
    )
    whole = data[(data["arm"] == ALL_TOKENS) & (data["attention"] == "")]
    base = {size: own.set_index("number") for size, own in whole.groupby("batch")}
    lines = []
    for (arm, attention, batch), own in data.groupby(KEYS, sort=False):
        facts = {name: own[name].mean() for name in FACTS[:3]}
        facts |= {name: own[name].sum() for name in FACTS[3:]}
        facts |= {"at_once": own["at_once"].min(), "machine": own["machine"].iloc[0]}
        for what in WHATS:
            values = own[what].dropna().to_numpy(np.float64)
            if not len(values) or not values.any():
                continue
            line = {"arm": arm, "attention": attention, "batch": batch, "what": what}
            for name, share in (("p50", 0.5), ("p95", 0.95)):
                line[name] = float(np.quantile(values, share))
                line[f"{name}_low"], line[f"{name}_high"] = interval(values, share, confidence)
            if what in COMPARED:
                ratio = base[batch][what] / own.set_index("number")[what]
                line["speedup"] = float(ratio.median())
                low, high = interval(ratio.to_numpy(np.float64), 0.5, confidence)
                line["speedup_low"], line["speedup_high"] = low, high
                line["counted"] = _counted(macs, str(arm), what)
                line["achieved"] = line["speedup"] / line["counted"]
            if what in (WHOLE, TOKEN):
                ends = {"": "p50", "_low": "p50_high", "_high": "p50_low"}
                line |= {f"per_second{end}": batch / line[time] for end, time in ends.items()}
            lines.append(line | {"batches": len(own)} | facts)
    return pd.DataFrame(lines)


def arm_times(times: pd.DataFrame, benchmark: str) -> pd.DataFrame:
    """A line per arm, for its published run: arm, benchmark and the columns below.

    time_ms, prefill_ms, select_ms  medians of one batch of the first size
    time_speedup        how many times faster than with all tokens
    achieved            share of the counted speed-up to the first token that became time
    requests_per_second_<n>  with n requests at once
    kv_bytes, peak_memory
    """
    own = times[times["attention"] == ""]
    lines: dict[str, dict[str, Any]] = {}
    for line in own.itertuples():
        found = lines.setdefault(line.arm, {"arm": line.arm, "benchmark": benchmark})
        if line.what == WHOLE:
            found[f"requests_per_second_{line.batch}"] = line.per_second
        if line.batch != own["batch"].iloc[0]:
            continue
        if line.what in (WHOLE, "prefill", "select"):
            found["time_ms" if line.what == WHOLE else f"{line.what}_ms"] = 1000 * line.p50
        if line.what == WHOLE:
            found |= {"time_speedup": line.speedup, "kv_bytes": line.kv_bytes}
            found["peak_memory"] = line.memory
        elif line.what == FIRST:
            found["achieved"] = line.achieved
    return pd.DataFrame(list(lines.values()))


def interval(values: NDArray[np.float64], share: float, confidence: float) -> tuple[float, float]:
    """The interval of a quantile of the values (n,); NaN for a bound that they cannot give."""
    if len(values) < 2:
        return np.nan, np.nan
    found = quantile_test(values, q=float(np.median(values)), p=share)
    low, high = found.confidence_interval(confidence_level=confidence)
    return float(low), float(high)


def _counted(macs: Mapping[str, Mapping[str, float]], arm: str, what: str) -> float:
    name = COUNTED.get(what)
    own, whole = macs.get(arm), macs.get(ALL_TOKENS)
    if name is None or own is None or whole is None:
        return np.nan
    parts = ("encoder_macs", "selection_macs", "llm_macs") if what == FIRST else (name,)
    if any(np.isnan(own[part]) or np.isnan(whole[part]) for part in parts):
        return np.nan
    return whole[name] / own[name]
