"""Every model family through the stages of the pipeline, file to file, on tiny random weights."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest
import torch
from builders.family_models import FAMILIES
from builders.video_llava_models import save_tiny_video_llava
from builders.videos import write_clips

from prunesid.families.declared import families_of
from prunesid.methods.registry import ENCODER, list_methods
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, Arm, make_arm, shared_budgets
from prunesid.study.files.costs import read_costs
from prunesid.study.files.features import Head, read_features, read_head
from prunesid.study.files.kept import load_kept
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.budgets import read_budgets, write_budgets
from prunesid.study.stages.costs import write_costs
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import extract
from prunesid.study.stages.information import write_part
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

BUDGET = 12
ARMS = (
    VANILLA,
    make_arm({"budget": BUDGET}),
    make_arm({"budget": BUDGET, "dynamic": "benchmark"}),
    make_arm({"budget": BUDGET, "method": "cls_topk"}),
    make_arm({"budget": BUDGET, "method": "random"}),
)
# 3 tokens of each of 8 frames; ToMe in so shallow a tower leaves 2 at the least.
CLIP_BUDGET = 24
# Tokens of an image, and of a clip, in families that take them.
IMAGES = {
    "internvl": 20,
    "llava_next": 88,
    "llava_onevision": 88,
    "mini_gemini": 16,
    "qwen2_vl": 25,
    "qwen2_5_vl": 25,
    "qwen3_vl": 25,
    "video_llava": 16,
}
# What a clip's prompt says between its frames enters, and counts, whatever is kept.
LABELS = {"internvl": 7 * 3}
CLIPS = {
    "internvl": 53,
    "llava_onevision": 33,
    "qwen2_vl": 24,
    "qwen2_5_vl": 24,
    "qwen3_vl": 24,
    "video_llava": 136,
}


def late_arms(tokens: int) -> tuple[Arm, ...]:
    """Arms inside the language model, for images or clips of that many tokens in 3 layers."""
    few = {"budget": round(0.55 * tokens)}
    return (
        make_arm({**few, "method": "fastv"}),
        make_arm({**few, "method": "sparsevlm"}),
        make_arm({**few, "method": "mustdrop", "rule": "budget"}),
        make_arm({**few, "method": "dart", "image_pivots": 1, "text_pivots": 1}),
    )


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    data = tmp_path_factory.mktemp("images") / "mme.parquet"
    render("pocket_mme", data, 2)
    return Source("pocket_mme", data), "mme_perception_score"


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    data = write_clips(tmp_path_factory.mktemp("clips"))
    return Source("msvd_qa", data), "answer_match"


def inside(family: str, budget: int) -> tuple[Arm, ...]:
    """Arms inside the encoder, where the family takes any."""
    return tuple(
        make_arm({"budget": budget, "method": method})
        for method in list_methods(ENCODER)
        if family in families_of(method)
    )


def run(
    folder: Path, model: Path, source: Source, metric: str, batch_size: int, arms=ARMS, options=()
) -> pd.DataFrame:
    """All stages -> the table of scores; `costs.csv` and the rest stay in the folder."""
    folder.mkdir()
    features, store = folder / "features.safetensors", Store(folder / "store")
    runtime = Runtime(str(model), batch_size=batch_size, options=options)
    extract(source, runtime, needs_of(arms), features)
    write_part(source.task, features, folder / "information.parquet")
    write_budgets(
        folder / "information.parquet",
        {source.task: shared_budgets(arms)},
        None,
        folder / "budgets.parquet",
    )
    budgets = read_budgets(folder / "budgets.parquet", source.task)
    encode_arms(source, runtime, features, arms, store, folder / "encoded.json")
    select_arms(features, arms, store, folder / "selections.json", budgets, folder / "encoded.json")
    answers = folder / "answers.json"
    answer_benchmark(source, runtime, features, folder / "selections.json", arms, store, answers)
    score_benchmark(source, source.task, metric, [answers], store, folder / "scores.parquet")
    write_costs([features], [answers], arms, store, folder / "costs.csv")
    return pd.read_parquet(folder / "scores.parquet")


def check(folder: Path, table: pd.DataFrame, arms=ARMS, beside: int = 0) -> None:
    """`beside`: text among the tokens that enter."""
    head = read_head(folder / "features.safetensors")
    assert set(table["arm"]) == {arm.name for arm in arms}
    assert table.groupby("arm").size().nunique() == 1
    assert table["answer"].map(type).eq(str).all()
    sizes = head.sizes
    costs = read_costs(folder / "costs.csv")
    by_name = {arm.name: arm for arm in arms}
    for arm, own in table.groupby("arm"):
        patches = own["image_id"].map(
            lambda name: sum(sizes[row] for m in head.inputs[name] for row in m.rows)
        )
        if arm == "vanilla":
            # Newlines and class tokens come on top where the model has them.
            assert (own["tokens"] >= patches).all()
        elif by_name[arm].is_late:
            # A mean over layers, met up to the rounding of its counts.
            assert own["tokens"].between(by_name[arm].budget - 2, by_name[arm].budget + 2).all()
        elif "dynamic" not in arm:
            assert (own["tokens"] <= by_name[arm].budget + beside).all()
        if arm == "vanilla":
            continue
        for part in ("llm", *(["encoder"] if spares_encoder(by_name[arm], head) else ())):
            assert costs.loc["vanilla", f"{part}_macs"] > costs.loc[arm, f"{part}_macs"]


def spares_encoder(arm: Arm, head: Head) -> bool:
    """Whether the arm's own encoder pass is cheaper, by a formula that the family has."""
    return arm.encodes and head.model_sizes.encoder is not None


@pytest.mark.parametrize("family", FAMILIES)
def test_images_go_through_every_stage(family, images, tiny_llava, tmp_path):
    FAMILIES[family](tmp_path / "model", tiny_llava)
    arms = (*ARMS, *inside(family, BUDGET), *late_arms(IMAGES[family]))
    table = run(tmp_path / "run", tmp_path / "model", *images, batch_size=2, arms=arms)
    check(tmp_path / "run", table, arms)
    again = run(tmp_path / "again", tmp_path / "model", *images, batch_size=1, arms=arms)
    pd.testing.assert_frame_equal(table, again)


@pytest.mark.parametrize("family", CLIPS)
def test_clips_go_through_every_stage(family, clips, tiny_llava, tmp_path):
    FAMILIES[family](tmp_path / "model", tiny_llava)
    # Frames of one color hold no information to share budgets by.
    budget = CLIP_BUDGET if family == "video_llava" else BUDGET
    still = tuple(arm for arm in ARMS if arm.dynamic is None)
    arms = (*still, *inside(family, budget), *late_arms(CLIPS[family]))
    table = run(tmp_path / "run", tmp_path / "model", *clips, batch_size=2, arms=arms)
    check(tmp_path / "run", table, arms, beside=LABELS.get(family, 0))


def test_class_tokens_of_frames_go_through_every_stage(clips, tiny_llava, tmp_path):
    """Of 24 tokens of a clip, 8 are class tokens, which a stored selection brings back."""
    save_tiny_video_llava(tmp_path / "model", tiny_llava)
    arms = (
        VANILLA,
        make_arm({"budget": CLIP_BUDGET, "method": "cls_topk"}),
        make_arm({"budget": 128}),
        *inside("video_llava", CLIP_BUDGET),
        make_arm({"budget": 128, "method": "tome"}),
    )
    table = run(
        tmp_path / "run", tmp_path / "model", *clips, batch_size=2, arms=arms,
        options=(("frame_cls", "keep"),),
    )  # fmt: skip
    head = read_head(tmp_path / "run" / "features.safetensors")
    assert {m.layout["cls"] for media in head.inputs.values() for m in media} == {"always"}
    vanilla, pruned, whole, smaller, tome, every = (table[table["arm"] == arm.name] for arm in arms)
    assert set(vanilla["tokens"]) == set(whole["tokens"]) == set(every["tokens"]) == {8 * 17}
    assert set(pruned["tokens"]) == set(tome["tokens"]) == {CLIP_BUDGET}
    # CLS and one patch: 2 x 2 would be too many for 3 places.
    assert set(smaller["tokens"]) == {8 * 2}
    assert vanilla["answer"].tolist() == whole["answer"].tolist() == every["answer"].tolist()


CHOSEN = ({"frame_cls": "keep"}, {"scope": "clip"}, {"scope": "clip", "frame_cls": "keep"})


@pytest.mark.parametrize("method", ["prunesid", "visionzip", "cls_topk"])
def test_an_arm_treats_frames_as_the_model_s_options_do(clips, tiny_llava, tmp_path, method):
    save_tiny_video_llava(tmp_path / "model", tiny_llava)

    def of(folder: Path, arms, options=()):
        """The kept tokens of every arm, and its answers."""
        table = run(folder, tmp_path / "model", *clips, batch_size=2, arms=arms, options=options)
        records, _ = read_features(folder / "features.safetensors", layers=())
        keys, store = read_keys(folder / "selections.json"), Store(folder / "store")
        for arm in arms:
            kept = load_kept(store.get(keys[arm.name]), records)
            yield kept, table[table["arm"] == arm.name].reset_index(drop=True)

    setting = {"budget": CLIP_BUDGET, "method": method}
    plain, *chosen = of(
        tmp_path / "arms", [make_arm(setting), *(make_arm(setting | each) for each in CHOSEN)]
    )
    differ = 0
    for number, options in enumerate(CHOSEN):
        kept, table = chosen[number]
        ((own, answers),) = of(tmp_path / str(number), [make_arm(setting)], tuple(options.items()))
        assert torch.equal(own.tokens, kept.tokens) and torch.equal(own.index, kept.index)
        columns = ["image_id", "answer", "tokens"]
        pd.testing.assert_frame_equal(table[columns], answers[columns])
        assert set(table["tokens"]) == {CLIP_BUDGET}
        differ += not (
            torch.equal(kept.count, plain[0].count) and torch.equal(kept.index, plain[0].index)
        )
    # VisionZip has a frame's CLS whatever is chosen.
    assert differ >= (2 if method == "visionzip" else 3)
