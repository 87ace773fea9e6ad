"""The runs of an ablation say what its comparison table says."""

import dataclasses
from pathlib import Path

import pandas as pd
import pytest
from builders.synthetic_scores import GQA, POPE, ROOT, grouping, scores_of

from prunesid.core.questions import LEFT_OUT
from prunesid.study.analysis.comparison import arm_values, compare, reference_arms, sample
from prunesid.study.config.study import Bootstrap, Study, Wandb
from prunesid.study.tracking.json import file_name
from prunesid.study.tracking.runs import disagreements, labels_of, runs_of, tags_of

BENCHMARKS = (GQA, POPE)
ABLATION = dataclasses.replace(grouping(), benchmarks=tuple(b.name for b in BENCHMARKS))
STUDY = Study(
    title="Made up",
    model="pocket",
    benchmarks=BENCHMARKS,
    ablations=(ABLATION,),
    plugins=(),
    seeds=3,
    batch_size=8,
    dtype="float32",
    device="cpu",
    results=ROOT / "results",
    limit=None,
    bootstrap=Bootstrap(resamples=200),
    wandb=Wandb("offline", "prunesid", None),
)


def by_arm(runs):
    """The runs by the names of their arms, and the comparison by its own."""
    arms = {label: arm for arm, label in labels_of(ABLATION).items()}
    return {arms.get(run.name, run.name): run for run in runs}


@pytest.fixture(scope="module")
def scores() -> pd.DataFrame:
    return scores_of(ABLATION.arms, BENCHMARKS, images=20)


@pytest.fixture(scope="module")
def values(scores) -> pd.DataFrame:
    return arm_values(sample(scores, ABLATION, BENCHMARKS, STUDY.bootstrap))


def test_runs_agree_with_the_comparison(scores, values, tmp_path):
    table = tmp_path / "table.csv"
    table.write_text("row,value\n")
    runs = runs_of(STUDY, ABLATION, scores, values, {"table": table}, {"commit": "abc"})
    assert [run.name for run in runs][:4] == [
        "all tokens",
        "random, 64 tokens, seed 0",
        "random, 64 tokens, seed 1",
        "random, 64 tokens, seed 2",
    ]
    assert [*by_arm(runs)] == [*(arm.name for arm in ABLATION.arms), "grouping"]
    assert {run.group for run in runs} == {"pocket/grouping"}
    comparison = compare(scores, ABLATION, BENCHMARKS, STUDY.bootstrap).set_index(
        ["arms", "benchmark"]
    )
    by_name = by_arm(runs)
    for arm in ("vanilla", "default", "budget-128"):
        for benchmark in BENCHMARKS:
            line = comparison.loc[(arm, benchmark.name)]
            for name in ("value", "ci_low", "ci_high"):
                assert by_name[arm].summary[f"{benchmark.name}/{name}"] == pytest.approx(line[name])
            assert by_name[arm].summary[f"{benchmark.name}/tokens"] == line["tokens_mean"]
    assert by_name["default"].config["arm"]["preset"] == "paper"
    assert by_name["default"].predictions is not None and len(by_name["vanilla"].predictions)
    assert runs[-1].job_type == "compare" and runs[-1].files == {"table": table}
    assert runs[-1].summary["pocket_gqa/questions"] == 160


def test_an_arm_keeps_its_run_when_others_join(scores, values):
    small = dataclasses.replace(ABLATION, cells=ABLATION.cells[-3:])
    few = arm_values(sample(scores, small, BENCHMARKS, STUDY.bootstrap))
    before = {run.name: run.id for run in runs_of(STUDY, small, scores, few, {}, {})[:-1]}
    after = {
        run.name: run.id for run in runs_of(STUDY, ABLATION, scores, values, {}, {"commit": "x"})
    }
    assert before.items() <= after.items()


def test_references_and_tags():
    references = reference_arms(ABLATION)
    assert set(references) == {arm.name for arm in ABLATION.arms}
    assert references["vanilla"] is None
    names = {name: arm.name for name, arm in references.items() if arm is not None}
    assert names["default"] == names["budget-128"] == "vanilla"
    assert names["grouping-kmeans"] == names["grouping-kmeans_seed-1"] == "default"
    assert names["budget-192_grouping-random_seed-2"] == "budget-192"
    arms = {arm.name: arm for arm in ABLATION.arms}
    assert tags_of(arms["vanilla"], "pocket") == ("pocket", "all tokens")
    assert tags_of(arms["budget-128"], "pocket") == (
        "pocket",
        "prunesid",
        "budget 128",
        "paper",
        "psca",
    )


def test_names_of_runs_differ_as_files_too():
    labels = ("a, b", "a  b", "../up", "x" * 300, "x" * 299 + "y", "grouping")
    rows = [dataclasses.replace(r, label=x) for r, x in zip(ABLATION.rows * 2, labels, strict=True)]
    cells = tuple(dataclasses.replace(ABLATION.cells[n], row=row) for n, row in enumerate(rows[:6]))
    names = labels_of(dataclasses.replace(ABLATION, cells=cells)).values()
    assert len({file_name(name) for name in (*names, ABLATION.name)}) == len(names) + 1
    assert not any("/" in name or len(name.encode()) > 240 for name in names)


def test_disagreements(scores):
    arms = {arm.name: arm for arm in ABLATION.arms}
    own, reference = arms["grouping-random"], arms["default"]
    found = disagreements(scores, own, reference, 1000)
    indexed = scores.set_index(["arm", "benchmark", "question_id"])["answer"]
    differing = (indexed[own.name] != indexed[reference.name]).sum()
    assert len(found) == differing and (found["answer"] != found["answer_reference"]).all()
    assert set(found["reference"]) == {"default"}
    few = disagreements(scores, own, reference, 6)
    assert few.groupby("benchmark").size().to_dict() == {"pocket_gqa": 3, "pocket_pope": 3}
    assert Path(few["question"].iloc[0]).name == "What is it?"
    assert len(disagreements(scores, own, own, 6)) == 0


def test_histograms_where_there_is_something_to_see(scores, values):
    varied = scores.copy()
    own = varied["arm"].eq("default") & varied["benchmark"].eq("pocket_gqa")
    varied.loc[own, "tokens"] = 50 + varied.loc[own, "image_id"].str[3:].astype(int)
    images = scores.loc[scores["benchmark"] == "pocket_gqa", "image_id"].unique()
    information = pd.DataFrame({"benchmark": "pocket_gqa", "image_id": images})
    information = pd.concat([information, information.assign(benchmark="pocket_pope")])
    information["phi"] = 0.5
    runs = by_arm(runs_of(STUDY, ABLATION, varied, values, {}, {}, information=information))
    assert set(runs["default"].histograms) == {"pocket_gqa/tokens_per_image"}
    assert sum(runs["default"].histograms["pocket_gqa/tokens_per_image"].counts) == len(images)
    assert runs["budget-128"].histograms == {}
    assert set(runs["grouping"].histograms) == {"pocket_gqa/phi", "pocket_pope/phi"}


def test_what_is_known_about_an_arm_joins_its_metrics(scores, values):
    facts = pd.DataFrame(
        {
            "arm": ["default", "default", "vanilla"],
            "benchmark": ["pocket_gqa", "pocket_pope", "pocket_gqa"],
            "tau_mean": [0.25, 0.5, None],
        }
    )
    runs = by_arm(runs_of(STUDY, ABLATION, scores, values, {}, {}, facts=facts))
    assert runs["default"].summary["pocket_pope/tau_mean"] == 0.5
    assert "pocket_gqa/tau_mean" not in runs["vanilla"].summary
    assert runs["vanilla"].summary["average/value"] == pytest.approx(100)


def test_an_arms_place_in_the_table_is_in_its_configuration(scores, values):
    runs = by_arm(runs_of(STUDY, ABLATION, scores, values, {}, {}))
    config = runs["budget-192_grouping-random_seed-2"].config
    assert (config["row"], config["column"]) == ("random", "192 tokens")
    assert (config["reference"], config["seed"]) == ("PSCA (PruneSID), 192 tokens", 2)
    assert runs["vanilla"].config["reference"] is None


def test_the_all_token_run_has_its_answers_the_wrong_ones_first(scores, values):
    run = runs_of(STUDY, ABLATION, scores, values, {}, {}, limit=20)[0]
    assert run.config["reference"] is None and len(run.predictions) == 20
    own = scores[scores["arm"] == "vanilla"].set_index(["benchmark", "question_id"])
    for line in run.predictions.itertuples():
        known = own.loc[(line.benchmark, line.question_id)]
        assert (line.answer, line.target, line.score) == tuple(known[["answer", "target", "score"]])
    for _, told in run.predictions.groupby("benchmark"):
        assert len(told) == 10 and told["score"].is_monotonic_increasing


def test_the_comparison_counts_what_is_left_out_and_only_where_something_is(scores, values):
    def counts(own):
        return {
            name: value
            for name, value in runs_of(STUDY, ABLATION, own, values, {}, {})[-1].summary.items()
            if name.endswith("left_out")
        }

    assert counts(scores) == {}
    first = scores["benchmark"].iloc[0]
    short = scores.copy()
    short.attrs[LEFT_OUT] = {first: [7, 2], "elsewhere": [1, 1]}
    assert counts(short) == {f"{first}/questions_left_out": 7, f"{first}/images_left_out": 2}
