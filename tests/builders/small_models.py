"""Published configurations in small, for models of random weights."""

from __future__ import annotations

import copy

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
