"""Results in the schema of Every Eval Ever: its fields, our numbers, every question once."""

import csv
import hashlib
import json
from dataclasses import replace

import pandas as pd
import pytest
from builders.every_eval_ever import AGGREGATE, INSTANCE, problems
from builders.synthetic_scores import BENCHMARKS, GQA, MME, POPE, ROOT, grouping, scores_of

from prunesid.study.analysis.comparison import compare
from prunesid.study.config.study import Bootstrap, load_study
from prunesid.study.report.evaluations import Model, model_of, write_evaluations

FEW = Bootstrap(resamples=200)


@pytest.fixture(scope="module")
def study():
    ablation = replace(grouping(), benchmarks=tuple(b.name for b in BENCHMARKS))
    known = load_study(ROOT / "configs" / "pocket.yaml")
    return replace(known, benchmarks=BENCHMARKS, ablations=(ablation,), bootstrap=FEW)


@pytest.fixture(scope="module")
def scores(study, tmp_path_factory):
    folder = tmp_path_factory.mktemp("scores")
    table = scores_of(study.arms, images=12)
    paths = {}
    for benchmark in BENCHMARKS:
        paths[benchmark.name] = path = folder / benchmark.name / "scores.parquet"
        path.parent.mkdir()
        table[table["benchmark"] == benchmark.name].to_parquet(path, index=False)
        metrics = {arm.name: {"metric,none": 0.5} for arm in study.arms}
        path.with_suffix(".json").write_text(json.dumps(metrics))
    return paths


@pytest.fixture(scope="module")
def exported(study, scores, tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    write_evaluations(study, scores, folder)
    return folder


def index_of(folder):
    with (folder / "index.csv").open(newline="") as stream:
        return list(csv.DictReader(stream))


def test_an_evaluation_per_arm_and_benchmark_in_the_schemas_fields(study, exported):
    lines = index_of(exported)
    assert len(lines) == len({line["evaluation"] for line in lines})
    assert [(line["benchmark"], line["arm"]) for line in lines] == [
        (b.name, arm.name) for b in BENCHMARKS for arm in study.arms
    ]
    names = set()
    for line in lines:
        path = exported / line["evaluation"]
        document = json.loads(path.read_text())
        assert problems(document, AGGREGATE) == []
        assert document["schema_version"] == "0.3.0"
        names.add(document["evaluation_id"])
        # Aggregate and questions are one name apart, in one folder.
        detailed = document["detailed_evaluation_results"]
        samples = exported / detailed["file_path"]
        assert samples.parent == path.parent and samples.name == f"{path.stem}_samples.jsonl"
        content = samples.read_bytes()
        assert hashlib.sha256(content).hexdigest() == detailed["checksum"]
        asked = [json.loads(each) for each in content.decode().splitlines()]
        assert len(asked) == detailed["total_rows"]
        for each in asked:
            assert problems(each, INSTANCE) == []
            assert each["evaluation_id"] == document["evaluation_id"]
            assert each["model_id"] == document["model_info"]["id"]
        result = document["evaluation_results"][0]
        assert {each["evaluation_result_id"] for each in asked} == {result["evaluation_result_id"]}
    assert len(names) == len(lines)
    files = [path for path in exported.rglob("*") if path.is_file()]
    assert len(files) == 2 * len(lines) + 1


def test_the_shape_finds_what_is_wrong():
    right = {"name": "a", "version": "1"}
    shape = AGGREGATE["eval_library"]
    assert problems(right, shape) == []
    assert problems({"name": "a"}, shape) == [".version: missing"]
    assert problems({**right, "more": 1}, shape) == [".more: unknown"]
    assert problems({**right, "additional_details": {"a": 1}}, shape)
    assert problems({**right, "name": 3}, shape)


def test_values_and_intervals_are_those_of_the_comparison(study, scores, exported):
    table = pd.concat(map(pd.read_parquet, scores.values()), ignore_index=True)
    compared = compare(table, study.ablations[0], BENCHMARKS, FEW)
    whole = compared[compared["row"] == "vanilla"].set_index("benchmark")
    for line in index_of(exported):
        if line["arm"] != "vanilla":
            continue
        document = json.loads((exported / line["evaluation"]).read_text())
        details = document["evaluation_results"][0]["score_details"]
        limits = document["evaluation_results"][0]["metric_config"]
        own = whole.loc[line["benchmark"]]
        scale = 1 if line["benchmark"] == MME.name else 100
        found = [
            details["score"],
            *list(details["uncertainty"]["confidence_interval"].values())[:2],
        ]
        expected = [own[name] / scale for name in ("value", "ci_low", "ci_high")]
        assert found == pytest.approx(expected)
        assert limits["min_score"] <= details["score"] <= limits["max_score"]
        assert details["details"]["lmms_eval.metric,none"] == "0.5"
        assert limits["metric_id"] == {GQA.name: "accuracy", POPE.name: "f1"}.get(
            line["benchmark"], limits["metric_id"]
        )


def test_every_question_stands_with_its_answer(scores, exported):
    table = pd.read_parquet(scores[GQA.name])
    line = next(
        x for x in index_of(exported) if x["benchmark"] == GQA.name and x["arm"] != "vanilla"
    )
    path = exported / line["evaluation"].replace(".json", "_samples.jsonl")
    own = table[table["arm"] == line["arm"]]
    for row, text in zip(own.itertuples(), path.read_text().splitlines(), strict=True):
        told = json.loads(text)
        assert told["sample_id"] == row.question_id
        assert told["input"] == {"raw": row.question, "reference": [row.target]}
        assert told["output"]["raw"] == [row.answer]
        assert told["evaluation"] == {"score": row.score, "is_correct": row.score == 1}
        assert told["metadata"]["image_id"] == row.image_id


def test_a_question_has_one_hash_whatever_the_arm(exported):
    by_arm = [
        [json.loads(text)["sample_hash"] for text in path.read_text().splitlines()]
        for line in index_of(exported)
        if line["benchmark"] == GQA.name
        for path in [exported / line["evaluation"].replace(".json", "_samples.jsonl")]
    ]
    assert len(by_arm) > 2 and all(hashes == by_arm[0] for hashes in by_arm)


def test_the_same_results_give_the_same_files(study, scores, exported, tmp_path):
    write_evaluations(study, scores, tmp_path)
    for path in exported.rglob("*"):
        if path.is_file():
            assert path.read_bytes() == (tmp_path / path.relative_to(exported)).read_bytes()


def test_a_model_is_ours_or_the_hubs_or_a_folders(study, tmp_path):
    assert model_of(study) == Model("prunesid", "pocket", embedded=True)
    hub = replace(study, model="llava-hf/llava-1.5-7b-hf")
    assert model_of(hub) == Model("llava-hf", "llava-1.5-7b-hf", embedded=False)
    folder = model_of(replace(study, model=str(tmp_path), name="mine"))
    assert folder.id == "unknown/mine"
