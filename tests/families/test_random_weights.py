"""Models of stated sizes with random weights: the sizes are those that planning counts."""

from __future__ import annotations

import copy

import pytest
from builders.small_models import small
from builders.tiny_llava import random_images
from builders.video_llava_models import clip

from prunesid.families import declared
from prunesid.families.adapter import Prompt
from prunesid.families.random_weights import random_adapter
from prunesid.generate.stations import Pruning, Request, serve
from prunesid.study.config.hub_models import hub_models


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
