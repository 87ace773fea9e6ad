"""Table 8 and the pictures of time, from times whose truth is known."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from builders.synthetic_scores import POPE, ROOT, ablation_of, scores_of

from prunesid.core.costs import STATIONS
from prunesid.study.analysis.comparison import compare
from prunesid.study.analysis.latency import summarize
from prunesid.study.config.study import Bootstrap
from prunesid.study.report.figures import Subject
from prunesid.study.report.latency import (
    Clocked,
    draw_speed,
    draw_stations,
    latency_table,
    speed_points,
)
from prunesid.study.report.panels import note_of
from prunesid.study.report.paper import load_paper

FEW = Bootstrap(resamples=100)


@pytest.fixture(scope="module")
def clocked():
    ablation = ablation_of(
        vary={"method": ["fastv", "visionzip", "prunesid"]},
        across={"budget": [128, 192]},
        reference={"method": "prunesid"},
        table={"paper_table": 8},
        latency={"batches": [1, 8]},
    )
    comparison = compare(
        scores_of(ablation.arms, (POPE,), images=20, skill=lambda arm: 0.8), ablation, [POPE], FEW
    )
    lines, facts = [], []
    for place, arm in enumerate(ablation.clocked_arms):
        share = 1.0 if arm.is_vanilla else 0.2 + 0.05 * place
        tower, choice, prefill = 1e9, 0.0 if arm.is_vanilla else 1e8, 3e9 * share
        facts.append(
            {
                "arm": arm.name, "benchmark": POPE.name, "encoder_macs": tower,
                "selection_macs": choice, "llm_macs": prefill,
                "total_macs": tower + choice + prefill,
            }
        )  # fmt: skip
        for batch in (1, 8):
            for number in range(64 // batch):
                times = (0.001, 0.02, 0.002, 0.001, 0.06 * share, 0.004)
                lines.append(
                    {
                        "arm": arm.name, "attention": "", "batch": batch, "number": number,
                        "questions": batch, "tokens": arm.budget or 576, "steps": 2,
                        "kv_bytes": 1e6 * share, "memory": 5e8, "same": batch, "machine": "a CPU",
                        "at_once": batch,
                        **dict(zip(STATIONS, (batch * t for t in times), strict=True)),
                    }
                )  # fmt: skip
    table = pd.DataFrame(facts)
    times = summarize(pd.DataFrame(lines), table.set_index("arm").to_dict("index"))
    return Clocked(Subject(comparison, ablation, [POPE], FEW, facts=table), times, POPE.name)


def test_it_has_the_papers_rows_and_ours(clocked):
    table = latency_table(clocked, load_paper(ROOT / "configs" / "paper"))
    ours, first, second, printed = table.blocks
    assert [row.label for row in ours.rows] == ["all tokens"]
    assert (first.title, second.title) == ("128 tokens", "192 tokens")
    assert len(first.rows) == len(second.rows) == 3
    assert all(len(row.cells) == len(table.columns) for b in table.blocks for row in b.rows)
    assert sum(span for _, span in table.groups) == len(table.columns)
    values = {row.label: [cell.value for cell in row.cells] for row in printed.rows}
    time, prefill, score = (table.columns.index(n) for n in ("time (ms)", "prefill (ms)", "POPE"))
    whole, ours_there = values["all tokens"], values["prunesid"]
    assert (whole[time], whole[prefill], whole[score]) == ("254", "218", "86.4")
    assert (ours_there[0], ours_there[time], ours_there[prefill]) == ("160", "89", "27.8")
    assert "LLaVA-NeXT-7B" in printed.title


def test_its_numbers_are_the_medians(clocked):
    table = latency_table(clocked)
    cells = dict(zip(table.columns, table.blocks[0].rows[0].cells, strict=True))
    assert cells["time (ms)"].value == "88" and cells["prefill (ms)"].value == "60"
    assert cells["to first token"].value == "1.00×" and cells["achieved"].value == "100 %"
    assert cells["peak memory"].value == "500 MB"
    assert cells["one by one"].value == cells["8 at once"].value == "11.4"
    assert "128 of 128" in table.caption[0].replace(",", "") or "896 of 896" in table.caption[0]


def test_a_picture_has_a_mark_for_every_arm(clocked):
    points = speed_points(clocked)
    assert len(points) == 7 and points["p50"].notna().all()
    drawn = draw_speed(points, clocked)
    left, right = drawn.axes[:2]
    assert len(left.lines) == len(right.lines) == 7
    assert [text.get_text() for text in drawn.legends[0].get_texts()][-1] == "all tokens"
    assert "a CPU" in note_of(drawn)


def test_bars_end_where_the_stations_add_up_to(clocked):
    points = speed_points(clocked)
    drawn = draw_stations(points, clocked)
    assert len(drawn.axes) == 2
    for ax, column in zip(drawn.axes, ("budget=128", "budget=192"), strict=True):
        own = points[(points["column"] == column) | (points["row"] == "vanilla")]
        ends = np.zeros(len(own))
        for patch in ax.patches:
            place = round(patch.get_y() + patch.get_height() / 2)
            ends[place] = max(ends[place], patch.get_x() + patch.get_width())
        assert ends == pytest.approx(1000 * own[list(STATIONS)].sum(axis=1).to_numpy())
        assert next(label.get_text() for label in ax.get_yticklabels()) == "all tokens"


def test_a_batch_that_was_served_in_parts_is_told(clocked):
    assert not any("in parts" in line for line in latency_table(clocked).caption)
    times = clocked.times.copy()
    times.loc[(times["batch"] == 8) & (times["arm"] == "vanilla"), "at_once"] = 4
    told = latency_table(replace(clocked, times=times)).caption[-1]
    assert told.endswith("did not suffice for all: vanilla at 8 at most 4 at once.")
