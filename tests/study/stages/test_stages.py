"""The stages on the pocket model: interrupted and extended runs end in the same files."""

from __future__ import annotations

import pandas as pd
import pytest
import torch
from builders.synthetic_scores import ablation_of
from sklearn.metrics import adjusted_rand_score

from prunesid.core.needs import Needs
from prunesid.core.questions import read_answers
from prunesid.families import load
from prunesid.generate.late import answer_late
from prunesid.methods.features import compress
from prunesid.pocket.benchmarks import render
from prunesid.study.analysis.arm_facts import write_arms
from prunesid.study.config.arm import VANILLA, make_arm, shared_budgets
from prunesid.study.files.features import read_features
from prunesid.study.files.kept import kept_digest, load_kept, save_kept
from prunesid.study.provenance.contents import model_path
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.answers import answer_benchmark, material_of
from prunesid.study.stages.budgets import read_budgets, write_budgets
from prunesid.study.stages.costs import write_costs
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import extract
from prunesid.study.stages.information import num_tokens, write_information, write_part
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

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
    score_benchmark(source, "pocket_mme", "mme_perception_score", [folder / "answers.json"], store,
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
    records, _ = read_features(work[0] / "features.safetensors")
    record = records.single
    kept = compress(record, "prunesid", budget=torch.tensor([8, 20, 64, 576]), preset="paper")
    save_kept(kept, tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", records)
    assert torch.equal(again.tokens, kept.tokens)
    assert torch.equal(again.index, kept.index)
    assert again.info.keys() == kept.info.keys()


def test_made_tokens_survive_the_disk(work, tmp_path):
    from dataclasses import replace

    records, _ = read_features(work[0] / "features.safetensors")
    record = records.single
    kept = compress(record, "grid", budget=16)
    index, tokens = kept.index.clone(), kept.tokens.clone()
    index[:, 3], tokens[:, 3] = -1, 7.0
    save_kept(replace(kept, index=index, tokens=tokens), tmp_path / "kept.safetensors")
    again = load_kept(tmp_path / "kept.safetensors", records)
    assert torch.equal(again.tokens, tokens)


def test_tokens_of_an_encoder_pass_are_stored_beside_the_others(tiny_llava, work, tmp_path):
    arms = [make_arm({"method": name, "budget": 5}) for name in ("grid", "tome", "downsample")]
    arms.append(make_arm({"method": "tome", "budget": 16}))
    runtime, store = Runtime(str(tiny_llava), batch_size=3), Store(tmp_path / "store")
    features, encoded = tmp_path / "features.safetensors", tmp_path / "encoded.json"
    extract(work[1], runtime, needs_of(arms), features)
    encode_arms(work[1], runtime, features, arms, store, encoded)
    selections, answers = tmp_path / "selections.json", tmp_path / "answers.json"
    select_arms(features, arms, store, selections, encoded=encoded)
    keys, (records, _) = read_keys(selections), read_features(features)
    assert set(keys) == {arm.name for arm in arms}

    adapter, task = load(str(tiny_llava)), work[1].open()
    first = {question.image_id: question for question in reversed(task.questions())}
    for arm, count in zip(arms[1:], (5, 4, 16), strict=True):
        kept = load_kept(store.get(keys[arm.name]), records)
        assert kept.count.tolist() == [count] * 4
        for row, name in enumerate(records.names):
            inputs = adapter.preprocess(task.media(first[name]))
            alone, _ = adapter.reduce(inputs, adapter.plans(arm.method, arm.budget, arm.params))
            torch.testing.assert_close(kept.tokens[row], alone.tokens[0], atol=1e-5, rtol=1e-4)
            assert torch.equal(kept.index[row], alone.index[0])

    everyone = [VANILLA, *arms]
    answer_benchmark(work[1], runtime, features, selections, everyone, store, answers)
    found = {name: read_answers(store.get(key)) for name, key in read_keys(answers).items()}
    assert {name: own[0].tokens for name, own in found.items()} == {
        "vanilla": 16,
        "method-grid_budget-5": 5,
        "method-tome_budget-5": 5,
        "method-downsample_budget-5": 4,
        "method-tome_budget-16": 16,
    }
    # With all tokens it is the unmodified model, asked once.
    assert read_keys(answers)["vanilla"] == read_keys(answers)["method-tome_budget-16"]

    write_costs([features], [answers], everyone, store, tmp_path / "costs.csv")
    spent = pd.read_csv(tmp_path / "costs.csv").set_index("arm")["encoder_macs"]
    assert spent["vanilla"] == spent["method-grid_budget-5"] == spent["method-tome_budget-16"]
    assert spent["method-downsample_budget-5"] < spent["method-tome_budget-5"] < spent["vanilla"]


def test_a_new_arm_in_the_encoder_encodes_alone(tiny_llava, work, tmp_path, monkeypatch):
    tome, smaller = (make_arm({"method": name, "budget": 4}) for name in ("tome", "downsample"))
    runtime, store = Runtime(str(tiny_llava), batch_size=4), Store(tmp_path / "store")
    features, encoded = tmp_path / "features.safetensors", tmp_path / "encoded.json"
    extract(work[1], runtime, needs_of([tome]), features)
    before = features.read_bytes()
    encode_arms(work[1], runtime, features, [VANILLA, tome], store, encoded)
    first = read_keys(encoded)
    put, stored = Store.put, []

    def counting(self, material, *arguments, **named):
        stored.append(material["arm"]["method"])
        return put(self, material, *arguments, **named)

    monkeypatch.setattr(Store, "put", counting)
    encode_arms(work[1], runtime, features, [VANILLA, tome, smaller], store, encoded)
    assert stored == ["downsample"]
    assert read_keys(encoded).items() > first.items()
    assert features.read_bytes() == before
    encode_arms(work[1], runtime, features, [VANILLA, tome, smaller], store, encoded)
    assert len(stored) == 1


@pytest.fixture(scope="module")
def information(work):
    """The table of two benchmarks: the same images under two names."""
    path = work[0] / "information.parquet"
    features = work[0] / "features.safetensors"
    parts = [work[0] / name for name in ("pocket_mme", "held_out")]
    for part in parts:
        write_part(part.name, features, part)
    write_information(parts, path)
    return path


def test_information_is_one_minus_redundancy(work, information):
    table = pd.read_parquet(information)
    assert list(table.columns) == ["benchmark", "image_id", "rho", "phi"]
    assert table["benchmark"].tolist() == ["pocket_mme"] * 4 + ["held_out"] * 4
    assert num_tokens(table, "held_out") == 576
    table = table[table["benchmark"] == "pocket_mme"]
    records, _ = read_features(work[0] / "features.safetensors")
    record = records.single
    unit = torch.nn.functional.normalize(record.features.double(), dim=2)
    plain = [(u @ u.T)[torch.ones(576, 576).triu(1).bool()].mean().item() for u in unit]
    assert table["rho"].tolist() == pytest.approx(plain, abs=1e-6)
    assert (table["rho"] + table["phi"]).tolist() == pytest.approx([1.0] * 4)


DYNAMIC = tuple(
    make_arm({"budget": 96, "dynamic": rule, "method": method})
    for rule in ("benchmark", "calibrated")
    for method in ("prunesid", "grid")
)


def budgets_of(information, folder, arms):
    wanted = {"pocket_mme": shared_budgets(arms)}
    write_budgets(information, wanted, "held_out", folder / "budgets.parquet")
    return folder / "budgets.parquet"


def test_budgets_follow_the_information_and_meet_the_mean(information, tmp_path):
    arms = [*ARMS, *DYNAMIC, make_arm({"budget": 576, "dynamic": "benchmark"})]
    path = budgets_of(information, tmp_path, arms)
    table = pd.read_parquet(path)
    assert list(table.columns) == ["rule", "budget", "benchmark", "image_id", "tokens"]
    phi = pd.read_parquet(information).drop_duplicates("image_id").set_index("image_id")["phi"]
    for (_, budget), own in table.groupby(["rule", "budget"]):
        # The calibration images are the benchmark's own here, so both rules meet its mean.
        assert own["tokens"].mean() == pytest.approx(budget, rel=0.005)
        order = own["image_id"].map(phi).rank().tolist()
        tokens = own["tokens"].tolist()
        pairs = sorted(zip(order, tokens, strict=True))
        assert [t for _, t in pairs] == sorted(tokens)
    assert len(table) == 3 * 4
    read = read_budgets(path, "pocket_mme")
    assert set(read) == {("benchmark", 96), ("calibrated", 96), ("benchmark", 576)}
    assert set(read["benchmark", 576].values()) == {576}
    assert read_budgets(path, "pocket_gqa") == {}


def test_without_dynamic_arms_the_budgets_are_an_empty_table(information, tmp_path):
    table = pd.read_parquet(budgets_of(information, tmp_path, ARMS))
    assert len(table) == 0
    assert list(table.columns) == ["rule", "budget", "benchmark", "image_id", "tokens"]


def test_a_budget_out_of_reach_names_the_benchmark(information, tmp_path):
    with pytest.raises(ValueError, match="pocket_mme, benchmark budgets of 600"):
        wanted = {"pocket_mme": [("benchmark", 600)]}
        write_budgets(information, wanted, None, tmp_path / "budgets.parquet")


def test_dynamic_arms_keep_their_budgets_by_any_method(work, information, tmp_path):
    budgets = read_budgets(budgets_of(information, tmp_path, DYNAMIC), "pocket_mme")
    features, store = work[0] / "features.safetensors", Store(tmp_path / "store")
    select_arms(features, [*ARMS, *DYNAMIC], store, tmp_path / "selections.json", budgets)
    keys = read_keys(tmp_path / "selections.json")
    records, _ = read_features(features)
    record = records.single
    for arm in DYNAMIC:
        kept = load_kept(store.get(keys[arm.name]), records)
        wanted = budgets[arm.dynamic, arm.budget]
        assert kept.count.tolist() == [wanted[name] for name in record.image_ids]
        if arm.method == "prunesid":
            assert kept.info["num_groups"].tolist() == [n // 4 for n in kept.count.tolist()]
            assert len(set(kept.info["num_groups"].tolist())) > 1


def test_other_budgets_are_another_selection_and_fixed_arms_know_none(work, tmp_path):
    records, _ = read_features(work[0] / "features.safetensors")
    record = records.single
    store, arms = Store(tmp_path / "store"), (*ARMS, DYNAMIC[0])

    def keys(*tokens):
        budgets = {("benchmark", 96): dict(zip(record.image_ids, tokens, strict=True))}
        select_arms(work[0] / "features.safetensors", arms, store, tmp_path / "keys.json", budgets)
        return read_keys(tmp_path / "keys.json")

    one, same, other = keys(90, 91, 92, 93), keys(90, 91, 92, 93), keys(90, 91, 92, 94)
    assert one == same
    assert {name for name in one if one[name] != other[name]} == {DYNAMIC[0].name}
    stored = {Store.key(entry.material): entry.material for entry in store.entries()}
    for arm in ARMS[1:]:
        assert stored[one[arm.name]]["arm"].keys() == {"method", "budget", "seed", "params"}
    with pytest.raises(ValueError, match="no budget for 4 of 4 images"):
        select_arms(work[0] / "features.safetensors", arms, store, tmp_path / "keys.json")


def test_an_arm_that_keeps_all_tokens_shares_the_answers_of_the_vanilla_arm(work, tmp_path):
    arms = (VANILLA, make_arm({"budget": 576}), make_arm({"budget": 576, "method": "grid"}))
    keys = read_keys(run(work, tmp_path, arms) / "answers.json")
    assert len(set(keys.values())) == 1


def test_the_usual_block_named_as_a_layer_gives_the_usual_tokens(work, tmp_path):
    arms = (make_arm({}), make_arm({"layer": 10}), make_arm({"layer": 0}))
    features, source = tmp_path / "features.safetensors", work[1]
    extract(source, RUNTIME, needs_of(arms), features)
    records, _ = read_features(features)
    record = records.single
    assert sorted(record.hidden) == [0, 10]
    assert torch.equal(record.hidden[10], record.features)
    assert sorted(read_features(features, layers=())[0].single.hidden) == []
    store = Store(tmp_path / "store")
    select_arms(features, arms, store, tmp_path / "selections.json")
    usual, named, early = (
        kept_digest(store.get(key)) for key in read_keys(tmp_path / "selections.json").values()
    )
    assert usual == named != early


def test_fields_are_stored_where_an_arm_reads_them(work, tmp_path):
    arms = tuple(make_arm({"method": name}) for name in ("divprune", "dpp", "hired", "prumerge"))
    features, source = tmp_path / "features.safetensors", work[1]
    extract(source, RUNTIME, needs_of(arms), features)
    records, _ = read_features(features)
    record = records.single
    adapter = load(model_path("pocket"))
    task = source.open()
    first = {q.image_id: q for q in reversed(task.questions())}
    inputs = adapter.preprocess([task.image(first[name]) for name in record.image_ids])
    asked = Needs(cls_attention=True, projected=True, last_attention=True, last_keys=True)
    direct = adapter.encode(inputs, asked).single
    for name in ("features", "cls_attention", "projected", "last_attention", "last_keys"):
        assert torch.equal(getattr(record, name), getattr(direct, name)), name
    assert record.keys is None
    assert record.projected.shape == (4, 576, adapter.project(record.features[0]).shape[-1])
    bare = read_features(features, fields=())[0].single
    assert bare.projected is None and bare.cls is None
    assert read_features(features, fields=("projected",))[0].single.projected is not None
    # What no arm reads is not stored.
    plain = read_features(work[0] / "features.safetensors")[0].single
    assert plain.projected is None and plain.last_attention is None and plain.last_keys is None
    store = Store(tmp_path / "store")
    select_arms(features, arms, store, tmp_path / "selections.json")
    counts = {}
    for name, key in read_keys(tmp_path / "selections.json").items():
        kept = load_kept(store.get(key), records)
        counts[name] = kept.count.tolist()
        if name == "method-prumerge":
            again = compress(record, "prumerge", budget=64)
            assert torch.equal(kept.tokens, again.tokens)
            assert torch.equal(kept.info["selected"], again.info["selected"])
    assert counts == {
        "method-divprune": [64] * 4,
        "method-dpp": [64] * 4,
        "method-hired": [64] * 4,
        "method-prumerge": [64] * 4,
    }


def test_mustdrops_key_set_comes_from_the_stored_features(work, tmp_path):
    mustdrop = make_arm({"method": "mustdrop", "budget": 150, "rule": "budget"})
    bare = make_arm({"method": "mustdrop", "budget": 150, "rule": "budget", "key_share": 0})
    assert needs_of([mustdrop, bare]) == Needs(last_cls_attention=True)
    assert needs_of([bare]) == Needs()
    features, store = tmp_path / "features.safetensors", Store(tmp_path / "store")
    extract(work[1], RUNTIME, needs_of([mustdrop]), features)
    records, _ = read_features(features)
    assert records.single.last_cls_attention.shape == (4, 576)
    select_arms(features, [mustdrop], store, tmp_path / "selections.json")
    given = (tmp_path / "selections.json", [mustdrop, bare], store, tmp_path / "answers.json")
    answer_benchmark(work[1], RUNTIME, features, *given)
    keys, kept = read_keys(tmp_path / "answers.json"), records.all_tokens()
    adapter, asked = load(model_path("pocket")), work[1].open().questions()
    for arm, attention in (
        (mustdrop, records.gather(kept.index, "last_cls_attention")),
        (bare, None),
    ):
        direct = answer_late(
            adapter, kept, records.inputs, asked, "mustdrop", budget=150, params=arm.params,
            cls_attention=attention, batch_size=RUNTIME.batch_size,
        )  # fmt: skip
        assert read_answers(store.get(keys[arm.name])) == direct.answers
    (tmp_path / "answers.json").unlink()
    with pytest.raises(ValueError, match="hold no last_cls_attention"):
        answer_benchmark(
            work[1], RUNTIME, work[0] / "features.safetensors", tmp_path / "selections.json",
            [mustdrop], Store(tmp_path / "other"), tmp_path / "answers.json",
        )  # fmt: skip


def test_a_late_arm_answers_on_all_tokens_and_tells_what_it_dropped(work, tmp_path, monkeypatch):
    ablation = ablation_of(vary=[{"method": "fastv"}, {"method": "grid"}], across={"budget": [128]})
    fastv = next(arm for arm in ablation.arms if arm.is_late)
    assert needs_of([fastv]) == needs_of([VANILLA])
    run(work, tmp_path, ablation.arms)
    assert read_keys(tmp_path / "selections.json").keys() == {"method-grid_budget-128"}

    store, key = Store(tmp_path / "store"), read_keys(tmp_path / "answers.json")[fastv.name]
    records, features = read_features(work[0] / "features.safetensors")
    direct = answer_late(
        load(model_path("pocket")), records.all_tokens(), records.inputs,
        work[1].open().questions(), "fastv", budget=128, batch_size=RUNTIME.batch_size,
    )  # fmt: skip
    assert read_answers(store.get(key)) == direct.answers
    plain, late = (material_of("all", features, RUNTIME, arm) for arm in (VANILLA, fastv))
    assert "late" not in plain["arm"] and Store.key(late) == key
    assert late["arm"]["late"].keys() == {"method", "budget", "params"}
    assert late["code"] != plain["code"]

    scores = pd.read_parquet(tmp_path / "scores.parquet").assign(benchmark="pocket_mme")
    write_costs(
        [work[0] / "features.safetensors"],
        [tmp_path / "answers.json"],
        ablation.arms,
        store,
        tmp_path / "costs.csv",
    )
    write_arms(
        ablation, scores, {"pocket_mme": [tmp_path / "selections.json"]},
        {"pocket_mme": tmp_path / "costs.csv"}, store, tmp_path / "arms.csv",
        tmp_path / "agreement.csv",
    )  # fmt: skip
    facts = pd.read_csv(tmp_path / "arms.csv").set_index("arm")
    mean = direct.entering.double().mean().item()
    assert facts.loc[fastv.name, "tokens_mean"] == pytest.approx(mean, rel=1e-5)
    assert mean == pytest.approx(128, abs=0.5)
    assert facts["input_mean"].to_dict() == {
        "vanilla": 576,
        fastv.name: 576,
        "method-grid_budget-128": 128,
    }
    assert facts.loc[fastv.name, "kv_mean"] == direct.cached.sum(dim=1).double().mean().item()
    assert facts.loc[fastv.name, "selection_macs"] == pytest.approx(
        direct.selection_macs.double().mean().item(), rel=1e-5
    )
    llm = facts["llm_macs"]
    # About the same tokens in the mean of the layers; unequal ones cost more, by the square.
    assert 1 < llm[fastv.name] / llm["method-grid_budget-128"] < 1.3
    assert llm["vanilla"] > 2.5 * llm[fastv.name]
    total = facts[["encoder_macs", "selection_macs", "llm_macs"]].sum(axis=1)
    assert facts["total_macs"].tolist() == pytest.approx(total.tolist(), rel=1e-5)

    put, stored = Store.put, []

    def counting(self, material, *arguments, **named):
        stored.append(material["stage"])
        return put(self, material, *arguments, **named)

    monkeypatch.setattr(Store, "put", counting)
    run(work, tmp_path, ablation.arms)
    assert stored == []


def test_the_facts_of_every_arm_and_the_agreement_of_its_groups(work, tmp_path):
    ablation = ablation_of(
        vary=[{"solver": "exact"}, {"solver": "randomized"}, {"method": "grid"}],
        across={"budget": [32, 64]},
    )
    features, store = work[0] / "features.safetensors", Store(tmp_path / "store")
    select_arms(features, ablation.arms, store, tmp_path / "selections.json")
    pd.DataFrame(
        {"arm": arm.name, "llm_macs": place} for place, arm in enumerate(ablation.arms)
    ).to_csv(tmp_path / "costs.csv", index=False)
    scores = pd.DataFrame(
        {
            "benchmark": "pocket_mme",
            "arm": arm.name,
            "image_id": str(image),
            "tokens": float(arm.budget or 576),
        }
        for arm in ablation.arms
        for image in range(4)
    )
    write_arms(
        ablation, scores, {"pocket_mme": [tmp_path / "selections.json"]},
        {"pocket_mme": tmp_path / "costs.csv"}, store, tmp_path / "arms.csv",
        tmp_path / "agreement.csv",
    )  # fmt: skip
    facts = pd.read_csv(tmp_path / "arms.csv").set_index("arm")
    assert set(facts.index) == {arm.name for arm in ablation.arms}
    assert facts.loc["vanilla", "tokens_mean"] == 576
    assert facts["llm_macs"].tolist() == list(range(len(ablation.arms)))
    assert facts.loc["default", ["tokens_min", "tokens_max"]].tolist() == [64, 64]
    kept = read_features(features)[0].compress("prunesid", budget=64)
    for name in ("tau", "suppressed", "survivors", "refilled", "rho"):
        mean = kept.info[name].double().mean().item()
        assert facts.loc["default", f"{name}_mean"] == pytest.approx(mean, rel=1e-5)
    assert facts.loc[["vanilla", "method-grid"], "tau_mean"].isna().all()

    agreement = pd.read_csv(tmp_path / "agreement.csv")
    assert agreement["row"].tolist() == ["solver=randomized"] * 2
    assert agreement["column"].tolist() == ["budget=32", "budget=64"]
    assert agreement["arms"].tolist() == [3, 3]
    assert agreement["between_seeds"].between(0.01, 0.99).all()
    exact = kept.info["group"]
    index = [
        adjusted_rand_score(a, b)
        for seed in range(3)
        for a, b in zip(
            exact.tolist(),
            read_features(features)[0]
            .compress("prunesid", budget=64, seed=seed, solver="randomized")
            .info["group"]
            .tolist(),
            strict=True,
        )
    ]
    assert agreement["with_reference"].iloc[1] == pytest.approx(sum(index) / len(index), rel=1e-4)


def test_limits_count_images(work):
    task = Source(work[1].task, work[1].data, images=2).open()
    assert len({q.image_id for q in task.questions()}) == 2
