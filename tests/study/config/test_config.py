"""Configurations: complete when right, and every mistake found at once with the choices named."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT

from prunesid.study.config.documents import ConfigError, read_schema, read_yaml
from prunesid.study.config.study import load_study, parse_study


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "llava-1.5-7b-hf"
    folder.mkdir(parents=True)
    vision = {"image_size": 336, "patch_size": 14, "num_hidden_layers": 24}
    (folder / "config.json").write_text(json.dumps({"vision_config": vision}))
    return folder


@pytest.fixture
def given(model: Path) -> dict:
    return read_yaml(ROOT / "configs" / "pocket.yaml") | {"model": str(model)}


def problems(document: dict, **places: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_study(document, **places)
    return "\n".join(caught.value.problems)


def test_the_default_study(given):
    study = parse_study(given)
    assert [b.name for b in study.benchmarks] == [
        "pocket_gqa",
        "pocket_mme",
        "pocket_pope",
        "pocket_sqa",
    ]
    # All but parts of `methods`, and those for the models of the other chapters.
    others = {"rivals", "late", "places", "crops", "frames", "merger"}
    assert {a.name for a in study.ablations} | others == {
        path.stem for path in (ROOT / "configs" / "ablations").glob("*.yaml")
    }
    assert {arm.name for arm in study.arms_of("pocket_pope")} < {a.name for a in study.arms}
    assert study.calibration.name == "pocket_calibration"
    assert [b.name for b in study.encoded][-1] == "pocket_calibration"
    assert study.bootstrap.resamples == 10000
    assert study.wandb.mode == "auto" and study.trackio
    assert study.model_name == "llava-1.5-7b-hf"
    with pytest.raises(dataclasses.FrozenInstanceError):
        study.title = "another"  # type: ignore[misc]


def test_the_commented_values_are_the_defaults(given):
    own = ("title", "model", "benchmarks", "ablations", "calibration", "overrides")
    short = {name: given[name] for name in own}
    assert parse_study(short) == parse_study(given)


def test_every_field_is_in_the_commented_study_and_described():
    schema = read_schema("config")
    assert list(read_yaml(ROOT / "configs" / "pocket.yaml")) == list(schema["properties"])
    for name in ("config", "ablation", "benchmark"):
        schema = read_schema(name)
        assert schema["$schema"]
        assert schema["additionalProperties"] is False
        assert all(field["description"] for field in schema["properties"].values())


def test_the_ablations_benchmarks_join_the_study(tmp_path, given):
    ablations = tmp_path / "ablations"
    ablations.mkdir()
    only = {"title": "B", "vary": {"budget": [16, 32]}, "benchmarks": ["pocket_sqa"]}
    (ablations / "budget.yaml").write_text(yaml.safe_dump(only))
    change = {"benchmarks": ["pocket_pope"], "ablations": ["grouping", "budget"], "overrides": {}}
    study = parse_study(given | change, folder=tmp_path)
    assert [b.name for b in study.benchmarks] == ["pocket_pope", "pocket_sqa"]
    assert [a.name for a in study.arms_of("pocket_sqa")] == ["vanilla", "budget-16", "budget-32"]
    assert len(study.arms_of("pocket_pope")) == 22
    assert [b.name for b in study.benchmarks_of(study.ablation("budget"))] == ["pocket_sqa"]


def shipped(given, name):
    return parse_study(
        read_yaml(ROOT / "configs" / f"{name}.yaml") | {"model": given["model"]},
        folder=ROOT / "configs",
    )


def test_the_full_study_adds_to_what_the_default_one_has_stored(given):
    full, default = shipped(given, "full"), parse_study(given)
    own = [a.name for a in full.ablations if a.name != "late"]
    assert own == [a.name for a in default.ablations]
    assert (full.results, full.limit) == (default.results, default.limit)
    for benchmark in default.benchmarks:
        whole = {arm.name for arm in full.arms_of(benchmark.name)}
        assert {arm.name for arm in default.arms_of(benchmark.name)} <= whole


def test_the_quick_study_has_every_kind_of_axis_and_of_budget(given):
    quick, default = shipped(given, "quick"), parse_study(given)
    kinds = {a.figure.kind for a in default.ablations}
    # A ranking takes more methods than it has.
    assert {ablation.figure.kind for ablation in quick.ablations} | {"ranking"} == kinds
    assert {arm.dynamic for arm in quick.arms} == {None, "benchmark", "calibrated"}
    assert any("layer" in arm.params for arm in quick.arms)
    assert quick.results != default.results


def test_overrides_change_the_ablation_that_they_name(given):
    thin = {"grouping": {"across": {"budget": [32]}, "seeds": 1}}
    study = parse_study(given | {"ablations": ["grouping", "score"], "overrides": thin})
    assert {a.budget for a in study.ablation("grouping").arms} == {None, 32}
    assert {a.budget for a in study.ablation("score").arms} == {None, 64, 128, 192}
    found = problems(given | {"ablations": ["score"], "overrides": {"scor": {}}})
    assert "overrides: Unknown ablation of this study 'scor'. Did you mean 'score'" in found
    found = problems(given | {"ablations": ["score"], "overrides": {"score": {"acros": {}}}})
    assert "config: overrides.score: Unknown field 'acros'" in found


def test_a_late_budget_that_the_decoder_rules_out_is_a_problem(given):
    late = {"ablations": ["late"], "overrides": {"late": {"across": {"budget": [64]}}}}
    found = problems(given | late | {"model": "pocket"})
    assert "arm method-fastv: budget 64: fastv on 6 layers shows all 576 tokens" in found
    assert "smallest possible budget is 97" in found
    late["overrides"]["late"]["across"]["budget"] = [128]
    found = problems(given | late | {"model": "pocket"})
    assert "arm method-mustdrop_budget-128_rule-budget" in found and "fastv" not in found
    assert "smallest possible budget is 136, or with a smaller key_share" in found
    study = parse_study(
        given
        | {
            "ablations": ["late"],
            "overrides": {"late": {"across": {"budget": [192]}}},
            "model": "pocket",
        }
    )
    assert {arm.method for arm in study.arms if arm.is_late} == {
        "dart",
        "fastv",
        "mustdrop",
        "sparsevlm",
    }


def test_what_qwens_positions_rule_out_is_a_problem(given):
    arms = [{"method": "sparsevlm"}, {"method": "fastv", "positions": "renumbered"}]
    late = {"vary": [*arms, {"method": "mustdrop", "key_share": 0}], "across": {"budget": [100]}}
    study = given | {"model": "Qwen/Qwen2-VL-7B-Instruct", "ablations": ["late"]}
    found = problems(study | {"overrides": {"late": late | {"reference": {"method": "sparsevlm"}}}})
    assert (
        "arm method-fastv_budget-100_positions-renumbered: positions: 'renumbered' has no" in found
    )
    assert "published budget of mustdrop 100" in found
    assert "arm method-sparsevlm" not in found
    study = parse_study(study | {"overrides": {"late": {"across": {"budget": [64]}}}})
    assert {arm.method for arm in study.arms if arm.is_late} == {
        "dart",
        "fastv",
        "mustdrop",
        "sparsevlm",
    }


def test_choices_of_crops_and_frames_are_those_of_the_model_s_family(given):
    choices = [{"scope": "clip"}, {"frame_cls": "keep"}, {"scope": "image"}, {"newline": "rows"}]
    vary = [{"label": "PruneSID"}, *choices]
    study = given | {"ablations": ["crops"], "overrides": {"crops": {"vary": vary}}}
    refused = {
        "llava-hf/llava-1.5-7b-hf": {"scope-clip", "frame_cls-keep", "scope-image", "newline-rows"},
        "llava-hf/llava-v1.6-vicuna-7b-hf": {"scope-clip", "frame_cls-keep"},
        "llava-hf/llava-onevision-qwen2-7b-ov-hf": {"scope-clip", "frame_cls-keep", "scope-image"},
        "LanguageBind/Video-LLaVA-7B-hf": {"scope-image", "newline-rows"},
    }
    for model, expected in refused.items():
        found = problems(study | {"model": model})
        assert set(re.findall(r"arm budget-160_(\S+):", found)) == expected
    assert "scope: 'image' is no choice in the model family 'video_llava'" in found
    assert "it is one in llava_next" in found


def with_tower(tmp_path: Path, **config: object) -> str:
    vision = {
        "model_type": "clip_vision_model",
        "image_size": 336,
        "patch_size": 14,
        "hidden_size": 8,
        "intermediate_size": 8,
        "num_hidden_layers": 5,
        "num_attention_heads": 2,
    }
    (tmp_path / "config.json").write_text(json.dumps({"vision_config": vision, **config}))
    return str(tmp_path)


def test_what_acts_in_the_encoder_is_planned_for_the_families_that_can(given, tmp_path):
    late = ["fastv", "sparsevlm", "mustdrop", "dart"]
    overrides = {"methods": {"except": [{"method": late}]}}
    chosen = given | {"ablations": ["methods"], "overrides": overrides}
    study = parse_study(chosen | {"model": "pocket"})
    assert {arm.method for arm in study.arms if arm.encodes} == {"downsample", "tome"}
    other = with_tower(tmp_path, model_type="other")
    found = problems(chosen | {"model": other})
    assert "arm method-tome: tome acts inside the vision encoder" in found
    assert "'other'. Families that it runs on: llava, llava_next" in found
    found = problems(chosen | {"model": "Qwen/Qwen2-VL-7B-Instruct"})
    assert "tome acts inside the vision encoder" in found and "downsample" not in found
    shallow = with_tower(tmp_path, model_type="llava", vision_feature_layer=-3)
    found = problems(chosen | {"model": shallow})
    assert "arm method-tome: budget 64: a block merges at most half" in found
    assert "3 blocks leave at least 72 of 576" in found
    assert "downsample" not in found and "budget-128" not in found
    crops = with_tower(tmp_path, model_type="llava_next", vision_feature_layer=-1)
    found = problems(chosen | {"model": crops})
    assert "budget 64 shared among 5 crops: budget 12: a block merges at most half" in found
    assert "downsample" not in found and "budget-192" not in found
    parse_study(chosen | {"model": with_tower(tmp_path, model_type="llava")})


def test_calibrated_arms_need_held_out_images(given):
    chosen = given | {"ablations": ["dynamic"], "overrides": {}}
    assert parse_study(chosen).calibration.task == "pocket_calibration"
    assert "name a benchmark of such images" in problems(chosen | {"calibration": None})
    assert "Did you mean 'pocket_calibration'" in problems(chosen | {"calibration": "pocket_calib"})
    assert "have the same images" in problems(chosen | {"calibration": "pocket_gqa"})


def test_the_calibration_set_is_encoded_only_where_an_arm_asks(given):
    study = parse_study(given | {"ablations": ["score"], "overrides": {}})
    assert study.encoded == study.benchmarks
    assert study.arms_of("pocket_calibration") == ()


def test_a_layer_beyond_the_models_blocks(given, model, tmp_path):
    (tmp_path / "ablations").mkdir()
    path = tmp_path / "ablations" / "deep.yaml"
    path.write_text("title: L\nvary: {layer: [0, 24]}\n")
    change = {"ablations": ["deep"], "overrides": {}}
    assert "24 is none of the model's 24 vision blocks" in problems(given | change, folder=tmp_path)
    path.write_text("title: L\nvary: {layer: [0, 1/2, -1]}\n")
    arms = parse_study(given | change, folder=tmp_path).arms
    assert [arm.name for arm in arms] == ["vanilla", "layer-0", "layer-12", "layer-23"]
    (model / "config.json").write_text("{}")
    assert "number of vision blocks" in problems(given | change, folder=tmp_path)


def test_all_mistakes_are_found_at_once(given):
    found = problems(
        given
        | {
            "benchmarks": ["pocket_pop", "pocket_gqa"],
            "ablations": ["groupings"],
            "model": "no/such/folder",
        }
    )
    assert "Did you mean 'pocket_pope'" in found
    assert "Did you mean 'grouping'" in found
    assert "there is no folder 'no/such/folder'" in found


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"benchmakrs": []}, "Did you mean 'benchmarks'"),
        ({"dtype": "float23"}, "Did you mean 'float32'"),
        ({"device": "cdua"}, "auto, cpu, mps"),
        ({"wandb": {"mode": "offlin"}}, "Did you mean 'offline'"),
        ({"wandb": {"modus": "offline"}}, "Did you mean 'mode'"),
        ({"trackio": "on"}, "whether runs are recorded for the dashboard"),
        ({"bootstrap": {"confidence": 95}}, "bootstrap.confidence"),
        ({"batch_size": 0}, "batch_size"),
        ({"limit": "ten"}, "limit"),
        ({"seeds": 1.5}, "seeds"),
        ({"benchmarks": []}, "benchmarks"),
        (
            {"model": "pocket", "model_options": {"newline": "drop"}},
            "parameter of the model family llava",
        ),
        (
            {
                "model": "llava-hf/llava-v1.6-vicuna-7b-hf",
                "model_options": {"newline": "dorp"},
            },
            "Did you mean 'drop'",
        ),
    ],
)
def test_mistakes_are_explained(given, change, message):
    assert message in problems(given | change)


def test_schema_mistakes_are_found_together(given):
    found = problems(given | {"dtype": "float23", "batch_size": 0, "tilte": "T"})
    assert found.count("\n") == 2


def test_a_missing_field_is_named(given):
    del given["ablations"]
    assert "'ablations' is missing" in problems(given)


def test_a_misspelt_model_folder(given, model):
    found = problems(given | {"model": str(model.parent / "llava-1.5-7b")})
    assert "Did you mean 'llava-1.5-7b-hf'" in found


def test_a_folder_without_a_model(given, tmp_path):
    assert "holds no config.json" in problems(given | {"model": str(tmp_path)})


def test_a_hub_name_that_is_not_in_the_cache(given, monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert "hf download some/model" in problems(given | {"model": "some/model"})


def test_a_budget_beyond_the_models_tokens(given, tmp_path):
    (tmp_path / "ablations").mkdir()
    path = tmp_path / "ablations" / "large.yaml"
    path.write_text("title: L\nvary: {budget: [64, 577]}\n")
    given = given | {"ablations": ["large"], "overrides": {}}
    found = problems(given, folder=tmp_path)
    assert "577 exceeds the 576 visual tokens" in found
    path.write_text("title: L\nvary: {budget: [64, 576]}\n")
    assert parse_study(given, folder=tmp_path)


def test_mistakes_in_ablations_and_benchmarks_carry_their_file(given, tmp_path):
    for kind, text in (
        ("ablations", "title: B\nvary: {groping: [psca]}\n"),
        ("benchmarks", "title: B\ntask: t\nmetric: m\nstatistic: men\n"),
    ):
        (tmp_path / kind).mkdir()
        (tmp_path / kind / "bad.yaml").write_text(text)
    found = problems(
        given | {"ablations": ["bad"], "benchmarks": ["bad"], "overrides": {}}, folder=tmp_path
    )
    assert f"{tmp_path / 'ablations' / 'bad.yaml'}:2: Unknown parameter of prunesid" in found
    assert f"{tmp_path / 'benchmarks' / 'bad.yaml'}:4: statistic: " in found


def test_a_study_file(given, tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(yaml.safe_dump(given))
    assert load_study(path) == parse_study(given)
    with pytest.raises(ConfigError, match="Did you mean"):
        load_study(tmp_path / "mien.yaml")
    path.write_text("title: [unclosed")
    with pytest.raises(ConfigError, match="mine.yaml"):
        load_study(path)
    path.write_text("just words")
    with pytest.raises(ConfigError, match="object"):
        load_study(path)


ONEVISION = "llava-hf/llava-onevision-qwen2-7b-ov-hf"


def shown(tmp_path, budget, *benchmarks, **fields):
    """A study of one budget on benchmarks of images and of clips."""
    path = tmp_path / "ablations" / "one.yaml"
    path.parent.mkdir(exist_ok=True)
    path.write_text(f"title: One\nvary: {{budget: [{budget}]}}\n")
    document = {"title": "T", "model": ONEVISION, "benchmarks": [*benchmarks]}
    return parse_study({**document, "ablations": ["one"], **fields}, folder=tmp_path)


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


@pytest.mark.usefixtures("empty_cache")
def test_budgets_of_clips_are_weighed_against_their_frames(tmp_path):
    study = shown(tmp_path, 4 * 196, "msvd_qa", "pope", frames=4)
    assert [study.frames_of(b) for b in study.benchmarks] == [4, None]
    with pytest.raises(ConfigError, match="785 exceeds the 784 visual tokens"):
        shown(tmp_path, 4 * 196 + 1, "msvd_qa", frames=4)
    # An image has more, and is asked about too.
    assert shown(tmp_path, 4 * 196 + 1, "msvd_qa", "pope", frames=4)


@pytest.mark.usefixtures("empty_cache")
def test_a_model_without_clips_is_refused_benchmarks_of_clips(tmp_path):
    with pytest.raises(ConfigError, match="benchmarks: msvd_qa shows clips: llava models take no"):
        shown(tmp_path, 64, "pope", "msvd_qa", model="llava-hf/llava-1.5-7b-hf")


def test_what_is_clocked_has_to_be_there(given):
    given["ablations"] = ["efficiency"]
    given["overrides"] = {"efficiency": {"benchmarks": ["pocket_pope"], "latency": {}}}
    assert parse_study(given).ablation("efficiency").clocked == "pocket_pope"
    given["overrides"]["efficiency"]["latency"] = {"benchmark": "pocket_gqa"}
    assert "latency.benchmark: Unknown benchmark of this ablation 'pocket_gqa'" in problems(given)
    given["overrides"]["efficiency"]["latency"] = {}
    assert "32 requests at once" in problems(given | {"limit": 16})
