"""The stages on the pocket model, file to file: interrupted and extended runs end in the same files."""

from __future__ import annotations

import pandas as pd
import pytest
import torch

from prunesid.answering.store import Store
from prunesid.methods import compress
from prunesid.pocket.benchmarks import render
from prunesid.stages.answers import answer_benchmark
from prunesid.stages.features import extract, needs_of, read_features
from prunesid.stages.information import write_information
from prunesid.stages.scores import score_benchmark
from prunesid.stages.selection import load_kept, read_keys, save_kept, select_arms
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import VANILLA, make_arm

ARMS = (VANILLA, make_arm({"budget": 64}), make_arm({"budget": 32, "grouping": "random"}, seed=1))
RUNTIME = Runtime("pocket", batch_size=4)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stages")
    render("pocket_mme", folder / "mme.parquet", 4)
    source = Source("pocket_mme", folder / "mme.parquet")
    extract(source, RUNTIME, needs_of(ARMS), folder / "features.safetensors")
    return folder, source


def run(work, folder, arms=ARMS):
    base, source = work
    store = Store(folder / "store")
    features = base / "features.safetensors"
    select_arms(features, arms, store, folder / "selections.json")
    answer_benchmark(
        source, RUNTIME, features, folder / "selections.json", arms, store, folder / "answers.json"
    )
    score_benchmark(source, "pocket_mme", "mme_perception_score", folder / "answers.json", store,
                    folder / "scores.parquet")  # fmt: skip
    return folder


def test_scores_hold_every_arm_and_question(work, tmp_path):
    table = pd.read_parquet(run(work, tmp_path) / "scores.parquet")
    assert table.groupby("arm").size().nunique() == 1
    assert set(table["arm"]) == {arm.name for arm in ARMS}
    assert dict(table.groupby("arm")["tokens"].first()) == {
        "vanilla": 576,
        "default": 64,
        ARMS[2].name: 32,
    }
    assert set(table["score"]) <= {0.0, 1.0}


def test_a_run_cut_short_ends_in_the_same_bytes(work, tmp_path, monkeypatch):
    whole = run(work, tmp_path / "whole")
    put, calls = Store.put, []

    def dying(self, *arguments, **named):
        if len(calls) == 4:
            raise KeyboardInterrupt
        calls.append(arguments)
        return put(self, *arguments, **named)

    monkeypatch.setattr(Store, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        run(work, tmp_path / "cut")
    assert not (tmp_path / "cut" / "answers.json").exists()
    monkeypatch.setattr(Store, "put", put)
    again = run(work, tmp_path / "cut")
    for name in ("selections.json", "answers.json", "scores.parquet", "scores.json"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()


def test_a_new_arm_is_computed_alone(work, tmp_path, monkeypatch):
    run(work, tmp_path, ARMS[:2])
    put, stored = Store.put, []

    def counting(self, material, *arguments, **named):
        stored.append(material["stage"])
        return put(self, material, *arguments, **named)

    monkeypatch.setattr(Store, "put", counting)
    run(work, tmp_path, ARMS)
    assert stored == ["select", "answer", "score"]
    run(work, tmp_path, ARMS)
    assert len(stored) == 3


def test_arms_that_keep_the_same_tokens_share_their_answers(work, tmp_path):
    same = (make_arm({"budget": 64}), make_arm({"budget": 64, "threshold": "scaled", "lam": 2.0}))
    keys = read_keys(run(work, tmp_path, same) / "answers.json")
    assert len(keys) == 2
    assert len(set(keys.values())) == 1


def test_kept_tokens_survive_the_disk(work, tmp_path):
    record, _ = read_features(work[0] / "features.safetensors")
    kept = compress(record, "prunesid", budget=torch.tensor([8, 20, 64, 576]), preset="paper")
    save_kept(kept, tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", record.features)
    assert torch.equal(again.tokens, kept.tokens)
    assert torch.equal(again.index, kept.index)
    assert again.info.keys() == kept.info.keys()


def test_made_tokens_survive_the_disk(work, tmp_path):
    from dataclasses import replace

    record, _ = read_features(work[0] / "features.safetensors")
    kept = compress(record, "grid", budget=16)
    index, tokens = kept.index.clone(), kept.tokens.clone()
    index[:, 3], tokens[:, 3] = -1, 7.0
    save_kept(replace(kept, index=index, tokens=tokens), tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", record.features)
    assert torch.equal(again.tokens, tokens)


def test_information_is_one_minus_redundancy(work, tmp_path):
    write_information(work[0] / "features.safetensors", tmp_path / "information.parquet")
    table = pd.read_parquet(tmp_path / "information.parquet")
    record, _ = read_features(work[0] / "features.safetensors")
    unit = torch.nn.functional.normalize(record.features.double(), dim=2)
    plain = [(u @ u.T)[torch.ones(576, 576).triu(1).bool()].mean().item() for u in unit]
    assert table["rho"].tolist() == pytest.approx(plain, abs=1e-6)
    assert (table["rho"] + table["phi"]).tolist() == pytest.approx([1.0] * 4)


def test_limits_count_images(work):
    task = Source(work[1].task, work[1].data, images=2).open()
    assert len({q.image_id for q in task.questions()}) == 2
