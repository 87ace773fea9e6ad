"""Benchmarks in parts: the same bytes in every table for any number; a GPU per job."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest
import torch
from builders.tiny_llava import random_images

from prunesid import families
from prunesid.core.questions import Question
from prunesid.generate import batches
from prunesid.generate.engine import answer
from prunesid.generate.late import answer_late
from prunesid.images.records import ImageRecords
from prunesid.pocket.benchmarks import render
from prunesid.study.analysis.arm_facts import write_arms
from prunesid.study.config.arm import shared_budgets
from prunesid.study.config.study import parse_study
from prunesid.study.files.features import read_head
from prunesid.study.layout import Layout
from prunesid.study.planning.estimate import estimate
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages import device
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.budgets import read_budgets, write_budgets
from prunesid.study.stages.costs import write_costs
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import encode_part
from prunesid.study.stages.information import write_information
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.patches import first_crops
from prunesid.study.stages.questions import write_questions
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.shard import WHOLE, Shard, by_benchmark, shards
from prunesid.study.stages.source import Source, runtime_of

IMAGES = 5
DOCUMENT = {
    "title": "In parts",
    "benchmarks": ["pocket_mme"],
    "ablations": ["few"],
    "limit": IMAGES,
    "batch_size": 1,
    "device": "cpu",
}
ABLATION = """
title: Few
vary:
  - {method: prunesid}
  - {method: random}
  - {method: fastv}
  - {method: tome}
  - {method: prunesid, dynamic: benchmark}
  - {method: cdpruner}
across: {budget: [192]}
seeds: 1
"""
TABLES = ("information.parquet", "scores.parquet", "costs.csv", "arms.csv", "agreement.csv")


def study_of(folder, **fields):
    (folder / "ablations").mkdir(parents=True, exist_ok=True)
    (folder / "ablations" / "few.yaml").write_text(ABLATION)
    return parse_study(DOCUMENT | {"results": str(folder)} | fields, folder=folder)


@pytest.mark.parametrize("count", range(21))
@pytest.mark.parametrize("of", [1, 2, 3, 7])
def test_parts_are_whole_blocks_in_order_and_nothing_is_lost(count, of):
    parts = [list(shard.take(range(count), 1)) for shard in shards(of)]
    assert [x for part in parts for x in part] == list(range(count))
    full = [part for part in parts if part]
    assert all(part[0] % batches.block_size(1) == 0 for part in full)
    sizes = [-(-len(part) // batches.block_size(1)) for part in parts]
    assert max(sizes) - min(sizes) <= 1


def test_a_part_has_the_questions_of_its_inputs_in_their_order(monkeypatch):
    monkeypatch.setattr(batches, "BATCHES", 1)
    asked = [Question(str(n), image, "") for n, image in enumerate("abacbd")]
    first, second = (shard.questions(asked, 2) for shard in shards(2))
    assert [q.id for q in first] == ["0", "1", "2", "4"]
    assert [q.id for q in second] == ["3", "5"]
    assert WHOLE.questions(asked, 2) == asked


def test_a_part_is_named_and_nothing_else_is_its_name():
    assert Shard.parse(str(Shard(3, 12))) == Shard(3, 12)
    for text in ("0-of-2", "3-of-2", "1 of 2", "1-of-2/..", ""):
        with pytest.raises(ValueError, match="no part"):
            Shard.parse(text)


def test_files_are_handed_out_benchmark_by_benchmark():
    found = by_benchmark(["a", "b"], ["a1", "a2", "b1", "b2"])
    assert {name: [str(p) for p in paths] for name, paths in found.items()} == {
        "a": ["a1", "a2"],
        "b": ["b1", "b2"],
    }
    with pytest.raises(ValueError, match="parts"):
        by_benchmark(["a", "b"], ["a1", "a2", "b1"])


@pytest.mark.parametrize("late", [False, True])
def test_batches_end_where_blocks_do(tiny_llava, monkeypatch, late):
    """A batch of inputs of two blocks would make an answer depend on where a benchmark is cut."""
    monkeypatch.setattr(batches, "BATCHES", 2)
    adapter = families.load(tiny_llava)
    names = [f"image{number}" for number in range(7)]
    records = adapter.encode(adapter.preprocess(random_images(7)), names=names)
    kept = records.all_tokens()
    asked = [Question(name, name, "is there a circle ?", {"max_new_tokens": 1}) for name in names]
    sizes = []
    if late:
        answer_late(adapter, kept, records.inputs, asked, "fastv", budget=None, batch_size=2,
                    params={"k": 1, "keep": 4}, progress=sizes.append)  # fmt: skip
    else:
        answer(adapter, kept, records.inputs, asked, batch_size=2, progress=sizes.append)
    assert sizes == [2, 2, 2, 1]


def run(folder, count, monkeypatch):
    """Every stage of the study on `count` parts -> folder of its tables."""
    monkeypatch.setattr(batches, "BATCHES", 2)
    study = study_of(folder, shards=count)
    benchmark, layout, store = study.benchmarks[0], Layout.of(study), Store(folder / "store")
    arms, runtime, parts = study.arms_of("pocket_mme"), runtime_of(study), shards(count)
    data = layout.data("pocket_mme")
    render("pocket_mme", data, IMAGES)
    source = Source("pocket_mme", data)
    features = [layout.features("pocket_mme", part) for part in parts]
    encoded, selections, answers = (
        [path.with_name(f"{name}.json") for path in features]
        for name in ("encoded", "selections", "answers")
    )
    questions = [layout.questions("pocket_mme", part) for part in parts]
    scores = [layout.scores_of_images("pocket_mme", part) for part in parts]
    for part, path, table in zip(parts, features, scores, strict=True):
        encode_part(
            "pocket_mme", source, runtime, needs_of(arms), part,
            features=path, head=layout.head("pocket_mme", part), information=table,
        )  # fmt: skip
    write_information(scores, folder / "information.parquet")
    write_budgets(
        folder / "information.parquet",
        {"pocket_mme": shared_budgets(arms)},
        None,
        folder / "budgets.parquet",
    )
    (folder / "budgets.parquet").rename(layout.budgets)
    budgets = read_budgets(layout.budgets, "pocket_mme")
    for part, own, passed, asked, kept, given in zip(
        parts, features, encoded, questions, selections, answers, strict=True
    ):
        encode_arms(source, runtime, own, arms, store, passed)
        write_questions(source, runtime, arms, own, asked, part)
        select_arms(own, arms, store, kept, budgets, passed, asked)
        answer_benchmark(source, runtime, own, kept, arms, store, given, part, asked)
    score_benchmark(
        source, "pocket_mme", benchmark.metric, answers, store, folder / "scores.parquet"
    )
    write_costs(features, answers, arms, store, folder / "costs.csv")
    write_arms(
        study.ablations[0], pd.read_parquet(folder / "scores.parquet"),
        {"pocket_mme": selections}, {"pocket_mme": folder / "costs.csv"}, store,
        folder / "arms.csv", folder / "agreement.csv",
    )  # fmt: skip
    return study, features, selections


@pytest.mark.slow
def test_the_number_of_parts_changes_no_table(tmp_path, monkeypatch):
    study, whole, _ = run(tmp_path / "1", 1, monkeypatch)
    done = {step.stage: (step.done, step.of) for step in estimate(study).steps}
    arms = len(study.arms)
    assert (done["features"], done["answer"], done["score"]) == ((1, 1), (arms, arms), (arms, arms))
    # Five images in blocks of two: three blocks on two parts, then on four, one of them empty.
    for count, images in ((2, [2, 3]), (4, [0, 2, 2, 1])):
        study, features, selections = run(tmp_path / str(count), count, monkeypatch)
        heads = [read_head(path) for path in features]
        assert [len(head.inputs) for head in heads] == images
        assert [bool(read_keys(path)) for path in selections] == [bool(n) for n in images]
        for table in TABLES:
            ours, theirs = (tmp_path / name / table for name in (str(count), "1"))
            assert ours.read_bytes() == theirs.read_bytes(), table
        done = {step.stage: (step.done, step.of) for step in estimate(study).steps}
        assert done["features"] == (count, count)
        assert (
            done["encode"] == (1, 1)
            and done["select"] == (4, 4)
            and done["questions"] == (count, count)
            and done["answer"] == done["score"] == (arms, arms)
        )
        crops = first_crops(features, selections)
        assert list(crops) == list(read_head(whole[0]).inputs)
        assert [crop.row for crop in crops.values()] == [n for part in images for n in range(part)]


def test_records_of_no_input():
    nothing = ImageRecords.cat([])
    assert (nothing.names, nothing.sizes, nothing.share) == ((), [], None)


HOLD = """
import sys, time
from pathlib import Path
from prunesid.study.stages.device import hold_one
with hold_one(["first", "second"], Path(sys.argv[1]), 0.05) as number:
    print(number, flush=True)
    sys.stdin.read()
"""


def test_jobs_hold_a_gpu_each_and_wait_for_one(tmp_path):
    def start():
        return subprocess.Popen(
            [sys.executable, "-c", HOLD, str(tmp_path / "locks")],
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    first, second = start(), start()
    taken = [process.stdout.readline().strip() for process in (first, second)]
    assert sorted(taken) == ["0", "1"]
    third = start()
    assert "waiting" in third.stderr.readline()
    assert third.poll() is None
    first.kill()  # the lock goes with the process, however that ends
    assert third.stdout.readline().strip() == taken[0]
    for process in (second, third):
        process.communicate()
        assert process.returncode == 0
    first.communicate()


def test_locks_that_another_user_could_have_prepared_are_refused(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("kept")
    locks = tmp_path / "locks"
    with device.hold_one(["one"], locks):
        assert locks.stat().st_mode & 0o777 == 0o700
    (locks / "one.lock").unlink()
    (locks / "one.lock").symlink_to(victim)
    with pytest.raises(OSError, match="one.lock"), device.hold_one(["one"], locks):
        pass
    assert victim.read_text() == "kept"
    open_to_all = tmp_path / "open"
    open_to_all.mkdir()
    open_to_all.chmod(0o777)
    link = tmp_path / "link"
    link.symlink_to(locks)
    for folder in (open_to_all, link):
        with pytest.raises(ValueError, match="not yours alone"), device.hold_one(["one"], folder):
            pass


def test_cuda_is_one_gpu_and_everything_else_is_itself(tmp_path, monkeypatch):
    monkeypatch.setattr(device.tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(device, "_gpus", lambda: ["one", "two"])
    with device.device_slot("cuda") as first, device.device_slot("cuda") as second:
        assert (first, second) == ("cuda:0", "cuda:1")
    with device.device_slot("cuda") as again:
        assert again == "cuda:0"
    for name in ("cpu", "mps", "cuda:3"):
        with device.device_slot(name) as same:
            assert same == name


def test_cuda_without_a_gpu_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(ValueError, match="sees no GPU"), device.device_slot("cuda"):
        pass
