"""Facts of a study's model before anything runs, wherever it lies."""

from __future__ import annotations

import json
from functools import reduce

import pytest

from prunesid.core.costs import EncoderShape
from prunesid.pocket import EMBEDDED
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.model import (
    Vision,
    geometry_of,
    is_hub_name,
    model_config,
    read_config,
    read_vision,
)

LLAVA = "llava-hf/llava-1.5-7b-hf"


@pytest.fixture
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    return tmp_path


def cache(folder, name, config):
    """Lay a repository's config.json into a hub cache as a download does."""
    repository = folder / f"models--{name.replace('/', '--')}"
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("abc")
    (snapshot / "config.json").write_text(json.dumps(config))


def test_a_published_model_is_known_before_it_is_downloaded(empty_cache):
    assert model_config(LLAVA) is None
    assert read_vision(LLAVA) == Vision(
        576, 24, 32, "llava", EncoderShape(layers=24, read=23, side=24)
    )
    assert read_vision("llava-hf/llava-v1.6-vicuna-7b-hf") == Vision(
        2880, 24, 32, "llava_next", EncoderShape(layers=24, read=23, side=24), crops=5
    )
    assert read_vision("LanguageBind/Video-LLaVA-7B-hf").encoding == EncoderShape(24, 23, 16)
    assert read_vision("YanweiLi/MGM-7B").encoding == EncoderShape(24, 23, 24)
    # Its images have no fixed number of tokens.
    assert read_vision("Qwen/Qwen2-VL-7B-Instruct") == Vision(None, 32, 28, "qwen2_vl", axes=3)


def test_what_was_downloaded_takes_precedence(empty_cache):
    config = dict(read_config(LLAVA))
    config["vision_config"] = dict(config["vision_config"], num_hidden_layers=6)
    cache(empty_cache, LLAVA, config)
    assert read_vision(LLAVA).depth == 6


def test_the_config_alone_is_enough_for_any_other_model(empty_cache):
    with pytest.raises(ConfigError) as caught:
        read_vision("some/model")
    message = str(caught.value)
    assert "`hf download some/model config.json`" in message
    assert "`make check` lists" in message and "Qwen/Qwen2-VL-7B-Instruct" in message
    cache(empty_cache, "some/model", read_config(LLAVA))
    assert read_vision("some/model").tokens == 576


def test_a_model_type_that_is_not_known_says_what_it_can(tmp_path):
    vision = {"image_size": 28, "patch_size": 14, "num_hidden_layers": 5}
    config = {"model_type": "other", "vision_config": vision}
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert read_vision(str(tmp_path)) == Vision(4, 5, None, "other")


def test_names_on_the_hub_are_told_from_folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own" / "model").mkdir(parents=True)
    assert is_hub_name(LLAVA)
    assert not any(map(is_hub_name, ("pocket", "own/model", "./a/b", "/a", "~/a", "a/b/c")))


def lay(folder, changes, model="pocket"):
    """A folder with the config.json of an embedded model, with other values at dotted keys."""
    config = json.loads((EMBEDDED[model] / "config.json").read_text())
    for key, value in changes.items():
        *parts, name = key.split(".")
        reduce(dict.__getitem__, parts, config)[name] = value
    (folder / "config.json").write_text(json.dumps(config))
    return str(folder)


@pytest.mark.parametrize("value", [0, -3, "x", 2.5, True, [1], {}, 10**30, None])
@pytest.mark.parametrize(
    ("model", "key"),
    [
        ("pocket", "vision_config.patch_size"),
        ("pocket", "vision_config.image_size"),
        ("pocket", "vision_config.num_hidden_layers"),
        ("pocket", "text_config.num_hidden_layers"),
        ("pocket", "text_config.num_attention_heads"),
        ("pocket-qwen", "vision_config.spatial_merge_size"),
        ("pocket-gemini", "image_size_aux"),
    ],
)
def test_a_size_that_is_none_is_refused_by_file_and_key(tmp_path, model, key, value):
    with pytest.raises(ConfigError) as caught:
        read_config(lay(tmp_path, {key: value}, model))
    (problem,) = caught.value.problems
    assert problem.startswith(f"model: {tmp_path}/config.json: ")
    assert key.rpartition(".")[2] in problem


@pytest.mark.parametrize(
    ("changes", "says", "model"),
    [
        ({"text_config": 3}, "text_config is a int", "pocket"),
        ({"aux_config": 3}, "aux_config is a int", "pocket-gemini"),
        ({"vision_config.patch_size": 400}, "patch_size 400 exceeds image_size 336", "pocket"),
        ({"vision_feature_layer": 13}, "vision_feature_layer 13 is no output of 12", "pocket"),
        ({"vision_feature_layer": 0}, "vision_feature_layer 0", "pocket"),
        ({"text_config.num_hidden_layers": 100_000}, "from 1 to 1,000 is", "pocket"),
        ({"image_grid_pinpoints": 3}, "no model has these sizes", "pocket-next"),
    ],
)
def test_sizes_that_contradict_are_refused(tmp_path, changes, says, model):
    with pytest.raises(ConfigError, match=says):
        read_config(lay(tmp_path, changes, model))


def test_what_keeps_weights_from_being_counted_names_the_file(tmp_path):
    shape = geometry_of(lay(tmp_path, {"text_config.rope_parameters": 3}))
    with pytest.raises(ConfigError, match=r"config\.json: .*'rope_parameters'"):
        assert shape.parameters
