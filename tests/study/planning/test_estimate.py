"""The estimate: right about what is there, before, during and after a study."""

from __future__ import annotations

import re

import pytest

from prunesid.__main__ import main
from prunesid.pocket.benchmarks import render
from prunesid.study.analysis.latency import read_timings
from prunesid.study.config.study import parse_study
from prunesid.study.layout import Layout
from prunesid.study.planning.estimate import estimate, text
from prunesid.study.provenance.store import Store
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.features import encode_part
from prunesid.study.stages.measure import measure_arms
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.shard import WHOLE
from prunesid.study.stages.source import Source, runtime_of

DOCUMENT = {
    "title": "Small",
    "benchmarks": ["pocket_mme"],
    "ablations": ["few"],
    "limit": 2,
    "device": "cpu",
}
ABLATION = "title: Few\nvary: {budget: [16, 64]}\nlatency: {questions: 2, batches: [1, 2]}\n"


@pytest.fixture
def study(tmp_path):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "few.yaml").write_text(ABLATION)
    document = DOCUMENT | {"results": str(tmp_path / "results")}
    return parse_study(document, folder=tmp_path)


def done(study) -> dict[str, tuple[int, int]]:
    return {step.stage: (step.done, step.of) for step in estimate(study).steps}


def test_nothing_is_done_before_the_first_run(study):
    whole = estimate(study)
    assert done(study) == {
        "images": (0, 1),
        "features": (0, 1),
        "select": (0, 2),
        "answer": (0, 3),
        "score": (0, 3),
        "information": (0, 1),
        "compare": (0, 1),
        "measure": (0, 1),
    }
    assert whole.seconds > 0
    assert whole.bytes > 2 * 576 * 4
    assert whole.wall_seconds(1) == pytest.approx(whole.seconds)
    assert 0 < whole.wall_seconds(8) <= whole.wall_seconds(1)
    shown = text(whole, 2)
    assert "Small: 3 arms, 1 ablation, 1 benchmark" in shown
    assert re.search(r"select +0 of 2 +\d+ s +shipped", shown)
    assert not study.results.exists()


def test_what_acts_in_the_encoder_is_a_step_of_its_own(tmp_path):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "few.yaml").write_text(
        "title: Few\nvary: [{method: grid}, {method: tome}, {method: downsample}]\n"
    )
    document = DOCUMENT | {"results": str(tmp_path / "results")}
    whole = estimate(parse_study(document, folder=tmp_path))
    steps = {step.stage: step for step in whole.steps}
    assert (steps["encode"].done, steps["encode"].of) == (0, 2)
    assert (steps["select"].done, steps["select"].of) == (0, 1)
    assert steps["encode"].left.bytes > 2 * 2 * 64 * 128 * 4
    assert whole.rates.seconds(steps["encode"].left) > whole.rates.seconds(steps["select"].left)


def test_it_counts_what_the_benchmark_will_have(study, tmp_path):
    before = estimate(study).sizes
    render("pocket_mme", Layout.of(study).data("pocket_mme"), study.limit)
    assert estimate(study).sizes == before
    assert before["pocket_mme"].images == 2


def test_it_follows_a_run_and_ends_with_nothing_left(study):
    layout, benchmark = Layout.of(study), study.benchmarks[0]
    arms, store = study.arms, Store(layout.store)
    data = layout.data("pocket_mme")
    render("pocket_mme", data, study.limit)
    source, features = Source("pocket_mme", data), layout.features("pocket_mme", WHOLE)
    head = layout.head("pocket_mme", WHOLE)
    encode_part(
        "pocket_mme", source, runtime_of(study), needs_of(arms), features=features, head=head
    )
    assert done(study)["features"] == (1, 1)
    folder = features.parent
    select_arms(features, arms[:2], store, folder / "some")
    assert done(study)["select"] == (1, 2)
    select_arms(features, arms, store, folder / "selections")
    assert done(study)["select"] == (2, 2)
    answer_benchmark(
        source,
        runtime_of(study),
        features,
        folder / "selections",
        arms[:1],
        store,
        folder / "answers",
    )
    assert done(study)["answer"] == (1, 3)
    half = estimate(study)
    assert half.rates.is_measured("select") and half.rates.is_measured("answer")
    answer_benchmark(
        source, runtime_of(study), features, folder / "selections", arms, store, folder / "answers"
    )
    score_benchmark(
        source,
        benchmark.name,
        benchmark.metric,
        [folder / "answers"],
        store,
        folder / "scores.parquet",
    )
    (layout.information).touch()
    layout.comparison("few").parent.mkdir(parents=True)
    layout.comparison("few").touch()
    assert done(study)["measure"] == (0, 1)
    measure_arms(
        source,
        runtime_of(study),
        study.ablations[0].clocked_arms,
        study.ablations[0].latency,
        {},
        [folder / "answers"],
        store,
        layout.timings("few"),
    )
    timings = read_timings(layout.timings("few"))
    # Three arms, two requests one by one and both at once; the answers are those above.
    assert len(timings) == 3 * (2 + 1) and (timings["same"] == timings["questions"]).all()
    times = layout.time("measure", "ablations", "few")
    times.parent.mkdir(parents=True)
    times.write_text("s\n30\n")
    whole = estimate(study)
    assert whole.rates.is_measured("measure")
    assert whole.seconds == whole.bytes == 0
    assert "Nothing is left to do." in text(whole, 1)


def test_another_batch_size_starts_over(study, tmp_path):
    layout = Layout.of(study)
    data = layout.data("pocket_mme")
    render("pocket_mme", data, study.limit)
    encode_part(
        "pocket_mme",
        Source("pocket_mme", data),
        runtime_of(study),
        needs_of(study.arms),
        head=layout.head("pocket_mme", WHOLE),
    )
    assert done(study)["features"] == (1, 1)
    document = DOCUMENT | {"results": str(study.results), "batch_size": 3}
    assert done(parse_study(document, folder=tmp_path))["features"] == (0, 1)


def test_the_command(study, tmp_path, capsys):
    path = tmp_path / "study.yaml"
    path.write_text(
        "\n".join(f"{name}: {value}" for name, value in DOCUMENT.items())
        + f"\nresults: {study.results}\n"
    )
    assert main(["estimate", str(path), "--cores", "3"]) == 0
    assert "on 3 cores" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="Did you mean"):
        main(["estimate", str(tmp_path / "studi.yaml")])
