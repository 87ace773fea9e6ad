"""Models of stated sizes with random weights: the sizes are those that planning counts."""

from __future__ import annotations

import copy

import pytest
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

from prunesid.families import declared
from prunesid.families.adapter import Prompt
from prunesid.families.random_weights import random_adapter
from prunesid.generate.stations import Pruning, Request, serve
from prunesid.study.config.hub_models import hub_models

SMALL = {
    "hidden_size": 48, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12,
}  # fmt: skip
VISION = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
QWEN_VISION = {"depth": 2, "num_heads": 2, "out_hidden_size": 48}


def small(config):
    """The config.json of a published model, with a tenth of its widths and layers."""
    found = copy.deepcopy(dict(config))
    text, vision = found.get("text_config", found), found["vision_config"]
    text |= {name: value for name, value in SMALL.items() if name in text}
    if "qwen" in config["model_type"]:
        vision |= QWEN_VISION
        vision |= (
            {"embed_dim": 32, "hidden_size": 48} if "embed_dim" in vision else {"hidden_size": 32}
        )
        vision |= {"intermediate_size": 48} if "intermediate_size" in vision else {}
        if config["model_type"] == "qwen2_5_vl":
            vision["fullatt_block_indexes"] = [1]
        if "deepstack_visual_indexes" in vision:
            vision["deepstack_visual_indexes"] = [0, 1]
        text["rope_parameters"] = {"rope_type": "default", "mrope_section": [2, 2, 2]}
    else:
        vision |= {name: value for name, value in VISION.items() if name in vision}
    if "aux_config" in found:
        found["aux_config"] = {"hidden_sizes": [8, 8, 16, 16], "depths": [1, 1, 1, 1]}
    return found


@pytest.mark.parametrize("name", hub_models())
def test_a_published_model_in_small_is_clocked(name):
    config = small(hub_models()[name].config)
    adapter = random_adapter(config, layers=2)
    assert adapter.sizes.decoder.layers == 2
    counted = copy.deepcopy(config)
    counted.get("text_config", counted)["num_hidden_layers"] = 2
    stated = declared.geometry(counted)
    assert sum(p.numel() for p in adapter.model.parameters()) == stated.parameters
    media = clip(0) if "Video-LLaVA" in name else random_images(1)[0].resize((224, 224))
    request = Request("one", [media], Prompt(((5, 6, 7), (8, 9))))
    whole = serve(adapter, Pruning(), [request], 3, min_new_tokens=3)
    few = serve(adapter, Pruning("grid", 16), [request], 3, min_new_tokens=3)
    assert whole.steps == 3 and few.kv_bytes < whole.kv_bytes


def test_an_unknown_type_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"llav.*llava_next"):
        random_adapter({"model_type": "llav"})
