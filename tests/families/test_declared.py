"""Sizes from a config.json: those of the models that transformers builds from it."""

from __future__ import annotations

import pytest
import torch
from transformers import CONFIG_MAPPING, AutoModelForImageTextToText

from prunesid.families.declared import family_of, geometry
from prunesid.families.declared.mini_gemini import convnext_macs
from prunesid.study.config.hub_models import hub_models

TEXT = {
    "model_type": "llama",
    "vocab_size": 96,
    "hidden_size": 40,
    "intermediate_size": 56,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}
VISION = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
    "image_size": 56,
    "patch_size": 14,
}
LLAVA = {"vision_config": VISION, "text_config": TEXT}
QWEN_TEXT = {key: value for key, value in TEXT.items() if key != "model_type"} | {
    "hidden_size": 64,
    "bos_token_id": None,
    "eos_token_id": None,
}
TINY = {
    "llava": LLAVA,
    "llava_next": LLAVA,
    "video_llava": LLAVA,
    "llava_onevision": {
        "vision_config": VISION | {"model_type": "siglip_vision_model", "vision_use_head": False},
        "text_config": TEXT | {"model_type": "qwen2"},
    },
    "internvl": {
        "vision_config": {
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 3,
            "num_attention_heads": 2,
            "image_size": [56, 56],
            "patch_size": [14, 14],
        },
        "text_config": TEXT | {"model_type": "qwen2"},
    },
    "qwen2_vl": {
        "vision_config": {"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2},
        "text_config": QWEN_TEXT,
    },
    "qwen2_5_vl": {
        "vision_config": {
            "depth": 2,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 64,
        },
        "text_config": QWEN_TEXT,
    },
    "qwen3_vl": {
        "vision_config": {
            "depth": 3,
            "hidden_size": 32,
            "intermediate_size": 40,
            "num_heads": 2,
            "out_hidden_size": 64,
            "deepstack_visual_indexes": [0, 1],
        },
        "text_config": QWEN_TEXT | {"head_dim": 24},
    },
}


@pytest.mark.parametrize("model_type", TINY)
def test_parameters_are_those_of_the_real_model(model_type):
    config = CONFIG_MAPPING[model_type](**TINY[model_type])
    with torch.device("meta"):
        model = AutoModelForImageTextToText.from_config(config)
    count = sum(parameter.numel() for parameter in model.parameters())
    # As saved, and as someone would write it, defaults left out.
    assert geometry(config.to_dict()).parameters == count
    assert geometry({"model_type": model_type, **TINY[model_type]}).parameters == count


@pytest.mark.parametrize("model_type", TINY)
def test_what_is_left_out_is_what_transformers_says(model_type):
    whole = CONFIG_MAPPING[model_type]().to_dict()
    if model_type == "llava_onevision":
        whole["vision_aspect_ratio"] = "anyres_max_9"
    assert geometry({"model_type": model_type}) == geometry(whole)


@pytest.mark.parametrize("name", hub_models())
def test_the_table_of_hub_models_says_what_transformers_does(name):
    published = hub_models()[name]
    family = family_of(published.config["model_type"])
    whole = family.configuration(published.config)
    assert geometry(whole.to_dict()) == geometry(published.config)
    assert family.parameters(published.config) == published.parameters


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl"])
def test_the_older_flat_configuration_of_qwen_says_the_same(model_type):
    tiny = TINY[model_type]
    # As the published checkpoints have it: the tower by the model's type, most fields left out.
    vision = tiny["vision_config"] | {"model_type": model_type, "in_chans": 3}
    flat = {"model_type": model_type, "vision_config": vision, **QWEN_TEXT}
    assert geometry(flat) == geometry({"model_type": model_type, **tiny})
    bare = {**flat, "vision_config": {"model_type": model_type, "in_chans": 3}}
    assert geometry(bare).tower.layers == 32


def test_tied_embeddings_count_once():
    tied = LLAVA | {
        "tie_word_embeddings": True,
        "text_config": TEXT | {"tie_word_embeddings": True},
    }
    difference = [geometry({"model_type": "llava", **c}).parameters for c in (LLAVA, tied)]
    assert difference[0] - difference[1] == TEXT["vocab_size"] * TEXT["hidden_size"]


def test_four_times_the_cells_of_a_convnext_are_four_times_the_work():
    depths, widths = [1, 2, 3, 1], [8, 16, 32, 64]
    assert convnext_macs(depths, widths, 32) == 4 * convnext_macs(depths, widths, 16)


def test_mini_gemini_reads_the_same_from_both_of_its_forms():
    published = geometry(hub_models()["YanweiLi/MGM-7B"].config)
    nested = {
        "model_type": "mini_gemini",
        "text_config": {"model_type": "llama"},
        "aux_config": {"depths": [3, 3, 27, 3], "hidden_sizes": [192, 384, 768, 1536]},
    }
    assert geometry(nested) == published


@pytest.mark.parametrize(
    ("name", "billions", "tokens"),
    [
        ("llava-hf/llava-1.5-7b-hf", 7.06, 576),
        ("llava-hf/llava-1.5-13b-hf", 13.35, 576),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", 7.06, 2880),
        ("LanguageBind/Video-LLaVA-7B-hf", 7.37, 2048),
        ("Qwen/Qwen2-VL-7B-Instruct", 8.29, 391),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8.29, 391),
        ("Qwen/Qwen3-VL-8B-Instruct", 8.77, 300),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 8.03, 7290),
    ],
)
def test_hub_models_have_the_sizes_that_they_are_known_by(name, billions, tokens):
    shape = geometry(hub_models()[name].config)
    assert shape.parameters / 1e9 == pytest.approx(billions, abs=0.005)
    assert shape.tokens == tokens


@pytest.mark.parametrize(
    ("name", "frames", "tokens", "crops"),
    [
        ("LanguageBind/Video-LLaVA-7B-hf", 16, 16 * 256, 16),
        ("llava-hf/llava-onevision-qwen2-7b-ov-hf", 32, 32 * 14 * 14, 32),
        # Frames in pairs, each as large as a usual image.
        ("Qwen/Qwen2-VL-7B-Instruct", 7, 4 * 391, 4),
        ("Qwen/Qwen2.5-VL-7B-Instruct", 8, 4 * 391, 4),
        ("Qwen/Qwen3-VL-8B-Instruct", 8, 4 * 300, 4),
    ],
)
def test_clips_have_the_tokens_of_their_frames(name, frames, tokens, crops):
    config = hub_models()[name].config
    shape, image = geometry(config, frames), geometry(config)
    assert (shape.tokens, shape.crops) == (shape.usual_tokens, shape.usual_crops) == (tokens, crops)
    assert shape.tower_tokens == image.tower_tokens
    assert shape.parameters == image.parameters


def test_a_family_without_clips_names_those_that_take_them():
    with pytest.raises(ValueError, match="llava models take no clips; internvl, llava_onevision"):
        geometry({"model_type": "llava", **LLAVA}, 8)
    assert geometry({"model_type": "bert"}, 8) is None


@pytest.mark.parametrize(
    ("name", "gigabytes"),
    [
        ("llava-hf/llava-v1.6-vicuna-7b-hf", 4.99 + 4.96 + 4.18),
        ("LanguageBind/Video-LLaVA-7B-hf", 4.98 + 4.95 + 4.81),
        ("YanweiLi/MGM-7B", 4.94 + 4.95 + 4.65),
    ],
)
def test_weights_take_what_their_published_files_do(name, gigabytes):
    parameters = geometry(hub_models()[name].config).parameters
    assert 2 * parameters / 1e9 == pytest.approx(gigabytes, abs=0.02)


def test_every_published_model_is_of_a_known_family():
    assert all(geometry(hub_models()[name].config) for name in hub_models())
    assert geometry({"model_type": "bert"}) is None


def test_usual_images_have_four_tiles_and_never_more_than_the_model_allows():
    next_, onevision = (
        geometry(hub_models()[f"llava-hf/{name}"].config)
        for name in ("llava-v1.6-vicuna-7b-hf", "llava-onevision-qwen2-7b-ov-hf")
    )
    assert (next_.usual_crops, next_.crops) == (5, 5)
    assert (onevision.usual_crops, onevision.crops) == (5, 10)
    assert onevision.usual_tokens == 5 * 729
