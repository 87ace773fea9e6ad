"""A study as published: offline runs, read back, say what its result tables say."""

import json

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from builders.published_runs import numbers, read_back, snapshot
from PIL import Image
from safetensors.torch import save_file

from prunesid.core.costs import Sizes, Transformer
from prunesid.core.record import VisionRecord
from prunesid.images.medium import Medium
from prunesid.images.records import ImageRecords
from prunesid.lmms.scoring import COLUMNS
from prunesid.pocket.benchmarks import render
from prunesid.study.analysis.comparison import (
    arm_values,
    compare_samples,
    read_comparison,
    sample,
    write_csv,
)
from prunesid.study.config.study import load_study
from prunesid.study.files.features import write_features, write_head
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import write_keys
from prunesid.study.stages.source import Source
from prunesid.study.tracking.artifacts import read_artifacts
from prunesid.study.tracking.json import file_name
from prunesid.study.tracking.ledger import read_ledger
from prunesid.study.tracking.pictures import GAP
from prunesid.study.tracking.study_runs import BenchmarkFiles, publish_study, settings_of

SIZES = Sizes(Transformer(6, 192, 512, 4, 4, 48, 3), None, 0)

IMAGES = 3
ABLATION = """
title: Made up
vary: {grouping: [psca, random]}
across: {budget: [16, 32]}
reference: {grouping: psca}
seeds: 1
"""


@pytest.fixture(scope="module")
def study(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    (folder / "ablations").mkdir()
    (folder / "ablations" / "made_up.yaml").write_text(ABLATION)
    document = {
        "title": "Made up",
        "benchmarks": ["pocket_mme"],
        "ablations": ["made_up"],
        "results": str(folder / "results"),
        "bootstrap": {"resamples": 100},
        "wandb": {"mode": "offline", "project": "made-up"},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(document))
    return load_study(folder / "study.yaml")


@pytest.fixture(scope="module")
def work(tmp_path_factory, study):
    """What the stages would have left: real images and questions, made-up answers."""
    folder = tmp_path_factory.mktemp("work")
    data = folder / "mme.parquet"
    render("pocket_mme", data, IMAGES)
    questions = Source("pocket_mme", data).open().questions()
    image_ids = list(dict.fromkeys(q.image_id for q in questions))
    files = BenchmarkFiles(
        folder / "scores.parquet",
        (folder / "selections.json",),
        (folder / "1-of-1" / "features.json",),
        data,
    )
    (head,), (selections,) = files.heads, files.selections
    head.parent.mkdir()
    inputs = {
        name: (Medium("image", (row,), {"view": "center"}),) for row, name in enumerate(image_ids)
    }
    record = VisionRecord(torch.zeros(IMAGES, 576, 1), grid=(24, 24))
    records = ImageRecords((record,), (tuple(range(IMAGES)),), inputs, None)
    features = folder / "features.safetensors"
    write_features([records], SIZES, "", {}, features)
    write_head(features, head)

    random, store, keys, rows = np.random.default_rng(0), Store(folder / "store"), {}, []
    for arm in study.arms:
        if not arm.is_vanilla:
            index = np.stack([random.permutation(576)[: arm.budget] for _ in range(IMAGES)])
            tensors = {"index": torch.from_numpy(np.sort(index, axis=1))}
            keys[arm.name] = store.put(
                {"arm": arm.name}, lambda p, kept=tensors: save_file(kept, p), ".safetensors"
            )
        for q in questions:
            answer = str(random.choice(["yes", "no"]))
            right = float(answer == q.target.lower())
            tokens = arm.budget or 576
            rows.append(
                ("pocket_mme", arm.name, q.id, q.image_id, q.category, q.context, answer, q.target,
                 right, 1.0, tokens)
            )  # fmt: skip
    write_keys(keys, selections)
    scores = pd.DataFrame(rows, columns=list(COLUMNS))
    scores.to_parquet(files.scores, index=False)

    place = folder / "made_up"
    place.mkdir()
    (ablation,) = study.ablations
    samples = sample(scores, ablation, study.benchmarks, study.bootstrap)
    write_csv(compare_samples(samples), place / "comparison.csv")
    arm_values(samples).to_parquet(place / "arm_values.parquet", index=False)
    Image.new("RGB", (30, 20)).save(place / "figure.png")
    (place / "table.html").write_text("<table></table>")
    facts = [(arm.name, "pocket_mme", 0.5 if arm.budget == 16 else None) for arm in study.arms]
    columns = ["arm", "benchmark", "tau_mean"]
    pd.DataFrame(facts, columns=columns).to_csv(place / "arms.csv", index=False)
    information = folder / "information.parquet"
    pd.DataFrame(
        {"benchmark": "pocket_mme", "image_id": image_ids, "rho": 0.5, "phi": [0.2, 0.5, 0.5]}
    ).to_parquet(information)
    return {"pocket_mme": files}, {"made_up": place}, information, store


def test_offline_runs_say_what_the_tables_say(study, work, tmp_path):
    directory = tmp_path / "runs"
    publish_study(study, *work, directory, tmp_path / "published.txt")
    assert "6 runs recorded offline" in (tmp_path / "published.txt").read_text()
    ledger = {e.name: e for e in read_ledger(directory / "receipts.json").values()}
    read = {
        name: read_back(directory / entry.deliveries["wandb"].place)
        for name, entry in ledger.items()
    }
    table = read_comparison(work[1]["made_up"] / "comparison.csv")
    lines = table[table["column"] != "overall"].set_index(["arms", "benchmark"])
    checked = 0
    for arm in study.arms:
        found = numbers(read[study.ablations[0].labels[arm.name]]["summary"])
        # The all-token arm is what averages are relative to, so the table has none of it.
        for benchmark in ("pocket_mme", "average")[: 1 if arm.is_vanilla else 2]:
            line = lines.loc[(arm.name, benchmark)]
            for name in ("value", "ci_low", "ci_high"):
                assert found[f"{benchmark}/{name}"] == pytest.approx(line[name], rel=1e-5)
                checked += 1
            for name in ("diff", "diff_low", "diff_high"):
                if not np.isnan(line[name]):
                    assert found[f"{benchmark}/{name}"] == pytest.approx(line[name], rel=1e-4)
                    checked += 1
        assert found["pocket_mme/tokens"] == lines.loc[(arm.name, "pocket_mme"), "tokens_mean"]
        assert found.get("pocket_mme/tau_mean") == (0.5 if arm.budget == 16 else None)
    assert checked == 3 * (5 + 4) + 3 * (2 + 2)

    held = read["made_up"]["summary"]
    place = directory / ledger["made_up"].deliveries["wandb"].place / "files"
    stored = json.loads((place / held["comparison"]["path"]).read_text())
    shown = pd.DataFrame(stored["data"], columns=stored["columns"])
    assert shown["value"].astype(float).tolist() == pytest.approx(table["value"].tolist())
    assert sum(held["pocket_mme/phi"]["values"]) == IMAGES


def test_pictures_belong_to_answers_that_differ(study, work, tmp_path):
    directory = tmp_path / "runs"
    publish_study(study, *work, directory, tmp_path / "published.txt")
    name = file_name(study.ablations[0].labels["budget-16_grouping-random"])
    held = json.loads((directory / "json" / "pocket-made_up" / f"{name}.json").read_text())
    predictions = pd.DataFrame(held["predictions"]["rows"], columns=held["predictions"]["columns"])
    assert (predictions["answer"] != predictions["answer_reference"]).all()
    with_picture = predictions.dropna(subset="picture")
    assert with_picture.groupby("picture")["image_id"].nunique().eq(1).all()
    assert set(with_picture["picture"]) == set(range(len(held["pictures"])))
    for line in with_picture.drop_duplicates("picture").itertuples():
        picture = held["pictures"][int(line.picture)]
        assert line.answer in picture["caption"] and line.question.split()[0] in picture["caption"]
        pixels = np.asarray(Image.open(directory / picture["path"]).convert("L"), dtype=int)
        assert pixels.shape == (224, 2 * 224 + GAP)
    files = {path.name for path in (directory / "pictures").iterdir()}
    assert files == {
        picture["path"].rpartition("/")[2]
        for path in (directory / "json").rglob("*.json")
        for picture in json.loads(path.read_text())["pictures"]
    }


def test_publishing_again_changes_nothing(study, work, tmp_path):
    directory = tmp_path / "runs"
    publish_study(study, *work, directory, tmp_path / "published.txt")
    before, said = snapshot(directory), (tmp_path / "published.txt").read_text()
    publish_study(study, *work, directory, tmp_path / "published.txt")
    assert snapshot(directory) == before
    assert (tmp_path / "published.txt").read_text() == said


def test_the_artifacts_of_a_study(study, work, tmp_path):
    publish_study(study, *work, tmp_path / "runs", tmp_path / "published.txt")
    features, answers, report = read_artifacts(tmp_path / "runs")
    assert (features.name, features.by_reference) == ("features-pocket", True)
    assert (answers.uses, report.uses) == (("features-pocket",), ("answers-pocket",))
    assert set(features.files) == {"pocket_mme/1-of-1.json"}
    assert set(answers.files) == {"pocket_mme.parquet"}
    assert set(report.files) == {
        f"made_up/{name}" for name in ("arms.csv", "comparison.csv", "figure.png", "table.html")
    }
    assert settings_of(study).target == "made-up"
