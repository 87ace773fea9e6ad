"""Where a GPU's memory does not suffice, batches are halved, and every file stays the same."""

from __future__ import annotations

import logging
import weakref
from itertools import pairwise

import pandas as pd
import pytest
import torch

from prunesid.core.files import file_digest
from prunesid.core.memory import Halving
from prunesid.images.records import ImageRecords
from prunesid.pocket.benchmarks import render
from prunesid.study.config.ablation import LatencyOptions
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.files.features import read_head
from prunesid.study.provenance.store import Store
from prunesid.study.stages import device, information
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import extract
from prunesid.study.stages.measure import measure_arms
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.questions import write_questions
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

EARLY = (make_arm({"budget": 64}), make_arm({"method": "cdpruner", "budget": 32}))
LATE = make_arm({"method": "fastv", "budget": 256})
INSIDE = make_arm({"method": "tome", "budget": 64})
ARMS = (VANILLA, *EARLY, LATE, INSIDE)
RUNTIME = Runtime("pocket", batch_size=7)
FULL = "CUDA out of memory"


def bounded(adapter, most):
    """The adapter as if no more than `most` rows fitted into memory at once."""

    def refusing(name, rows_of):
        run = getattr(adapter, name)

        def bound(*given, **named):
            if rows_of(*given) > most:
                raise torch.OutOfMemoryError(FULL)
            return run(*given, **named)

        setattr(adapter, name, bound)

    def images(inputs, *_):
        return len(inputs["pixel_values"])

    refusing("encode", images)
    refusing("reduce", images)
    # The prefixes of a batch, and each step of decoding.
    refusing("run", lambda embeddings, *_: len(embeddings))
    # The questions of a batch; single texts have one dimension.
    refusing("embed", lambda ids: len(ids) if ids.ndim == 2 else 1)
    return adapter


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    path = tmp_path_factory.mktemp("memory") / "mme.parquet"
    render("pocket_mme", path, 9)
    return Source("pocket_mme", path)


def study(source, folder):
    """What the head of the features says, and the digests of all other files that hold results."""
    store, features = Store(folder / "store"), folder / "features.safetensors"
    extract(source, RUNTIME, needs_of(ARMS), features)
    information.write_part("pocket_mme", features, folder / "information.parquet")
    encode_arms(source, RUNTIME, features, [INSIDE], store, folder / "encoded.json")
    questions = folder / "questions.safetensors"
    write_questions(source, RUNTIME, EARLY, features, questions)
    select_arms(
        features, ARMS, store, folder / "selections.json", encoded=folder / "encoded.json",
        questions=questions,
    )  # fmt: skip
    answer_benchmark(
        source, RUNTIME, features, folder / "selections.json", ARMS, store,
        folder / "answers.json", questions=questions,
    )  # fmt: skip
    files = [folder / "selections.json", folder / "answers.json", folder / "information.parquet"]
    files += [path for path in store.root.rglob("*") if path.suffix in (".safetensors", ".parquet")]
    # A head holds digests of all tensors; the order of its fields in the file is not fixed.
    return read_head(features), {str(p.relative_to(folder)): file_digest(p) for p in files}


@pytest.fixture(scope="module")
def undisturbed(source, tmp_path_factory):
    return study(source, tmp_path_factory.mktemp("undisturbed"))


def limit(monkeypatch, most):
    load, compress = device.load, ImageRecords.compress
    monkeypatch.setattr(
        device, "load", lambda *given, **named: bounded(load(*given, **named), most)
    )

    def bound(self, *given, **named):
        if len(self.names) > most:
            raise torch.OutOfMemoryError(FULL)
        return compress(self, *given, **named)

    monkeypatch.setattr(ImageRecords, "compress", bound)
    unit = information.unit

    def scaled(features):
        if len(features) > most:
            raise torch.OutOfMemoryError(FULL)
        return unit(features)

    monkeypatch.setattr(information, "unit", scaled)


@pytest.mark.parametrize("most", [5, 1])
def test_every_file_of_a_study_is_the_same_with_less_memory(
    source, undisturbed, tmp_path, monkeypatch, caplog, most
):
    limit(monkeypatch, most)
    with caplog.at_level(logging.WARNING, "prunesid.core.memory"):
        assert study(source, tmp_path) == undisturbed
    sizes = [7, 3] if most == 5 else [7, 3, 1]
    for what in ("images to encode", "answers"):
        told = [each.args[1:] for each in caplog.records if each.args[0] == what]
        # Once per job: the tower, its pass for an arm; all arms' answers.
        once = list(pairwise(sizes))
        assert told == once * (2 if what == "images to encode" else 1)
    for what in ("images to choose tokens of", "images to find the information of"):
        told = [each.args[1:] for each in caplog.records if each.args[0] == what]
        assert told == ([(9, 4)] if most == 5 else [(9, 4), (4, 2), (2, 1)])


def test_the_clock_serves_a_batch_in_parts_and_says_so(source, tmp_path, monkeypatch, caplog):
    _, files = study(source, tmp_path)
    assert "answers.json" in files
    limit(monkeypatch, 3)
    arms, options = [VANILLA, EARLY[0], LATE], LatencyOptions(None, 8, (1, 8), 1)
    with caplog.at_level(logging.WARNING, "prunesid.core.memory"):
        measure_arms(
            source, RUNTIME, arms, options, {}, [tmp_path / "answers.json"],
            Store(tmp_path / "store"), tmp_path / "timings.csv",
        )  # fmt: skip
    # Once for every arm.
    told = [each.args for each in caplog.records]
    assert told == [(f"requests of {arm.name}", *s) for arm in arms for s in ((8, 4), (4, 2))]
    lines = pd.read_csv(tmp_path / "timings.csv")
    assert (lines["at_once"] == lines["batch"].replace(8, 2)).all()
    assert (lines["questions"] == lines["batch"]).all() and (lines["same"] == lines["batch"]).all()
    few = lines[lines["arm"] == EARLY[0].name]
    assert set(few["tokens"]) == {64}
    one, eight = (few[few["batch"] == size] for size in (1, 8))
    # Four parts of two, one after another: a cache of two requests, and steps of all four.
    assert eight["kv_bytes"].item() < 3 * one["kv_bytes"].max()
    assert eight["steps"].item() >= 4


def test_one_image_that_does_not_fit_is_an_error_that_says_what_helps(
    source, tmp_path, monkeypatch
):
    limit(monkeypatch, 0)
    with pytest.raises(MemoryError, match="^pocket on pocket_mme: .*What helps: `dtype: bfloat16`"):
        extract(source, RUNTIME, needs_of(ARMS), tmp_path / "features.safetensors")
    assert not list(tmp_path.iterdir())
    monkeypatch.undo()
    extract(source, RUNTIME, needs_of(ARMS), tmp_path / "features.safetensors")
    limit(monkeypatch, 0)
    with pytest.raises(MemoryError, match=r"^choosing tokens of \S+features.safetensors: "):
        select_arms(
            tmp_path / "features.safetensors", EARLY[:1], Store(tmp_path), tmp_path / "keys.json"
        )


def test_a_failed_attempt_leaves_nothing_in_memory():
    made = []

    def work(items):
        # A tensor of the attempt, which its frame holds.
        own = torch.zeros(len(items))
        made.append(weakref.ref(own))
        if len(made) > 1:
            assert made[0]() is None
        if len(items) > 2:
            raise torch.OutOfMemoryError(FULL)
        return items

    assert list(Halving("items").run([1, 2, 3, 4, 5], work)) == [[1, 2], [3, 4], [5]]


def test_another_error_is_no_lack_of_memory():
    def work(items):
        raise RuntimeError("CUDA error: device-side assert triggered")

    with pytest.raises(RuntimeError, match="device-side assert"):
        list(Halving("items").run([1, 2], work))
