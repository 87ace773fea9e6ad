"""A family from outside: one file makes it known to configurations, planning and `pruned`."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
from builders.synthetic_scores import ROOT
from builders.tiny_llava import random_images
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid
from prunesid import families
from prunesid.core.registry import withdraw
from prunesid.families import declared
from prunesid.study.config.documents import ConfigError, read_yaml
from prunesid.study.config.model import geometry_of, read_vision
from prunesid.study.config.plugins import load_plugins
from prunesid.study.config.study import parse_study
from prunesid.study.provenance.code import family_modules

PLUGIN = """
from prunesid.families import register
from prunesid.families.declared import PLANNED, Family, declare
from prunesid.families.declared.geometry import configured, vit
from prunesid.families.llava import Llava

declare(
    Family(
        "made_up",
        lambda config, frames: vit(config, tiles=2 if frames is None else 0, frames=frames or 1),
        padding="none",
        prompt="its own",
        clips=True,
        choices={"newline": ("rows",)},
        encoder=PLANNED,
        aliases=("made_up_once",),
        configuration=lambda config: configured({**config, "model_type": "llava"}),
    )
)


@register("made_up")
class MadeUp(Llava):
    pass
"""
MODULE = "prunesid_plugin_made_up"


@pytest.fixture
def made_up(tmp_path, tiny_llava):
    """The folder of a config.json of the family, which is known while the test runs."""
    (tmp_path / "made_up.py").write_text(PLUGIN)
    config = json.loads((tiny_llava / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "made_up_once"}))
    load_plugins(["made_up.py"], tmp_path)
    try:
        yield tmp_path
    finally:
        withdraw(MODULE)
        assert "made_up" not in [*declared.names(), *families.families()]


def test_configurations_and_planning_know_it(made_up, tiny_llava):
    vision, usual = read_vision(str(made_up)), read_vision(str(tiny_llava))
    assert (vision.family, vision.crops) == ("made_up", 3)
    assert vision.tokens == 3 * usual.tokens and vision.encoding == usual.encoding
    assert family_modules(str(made_up))[0] == MODULE
    shapes = [geometry_of(str(made_up), frames) for frames in (None, 5)]
    assert [shape.crops for shape in shapes] == [3, 5]
    assert {shape.parameters for shape in shapes} == {geometry_of(str(tiny_llava)).parameters}
    assert "made_up" in declared.families_of("tome")
    with pytest.raises(
        ValueError, match=r"llava models take no clips; internvl, llava_onevision, made_up"
    ):
        declared.refuse_without_clips("llava")


def test_studies_know_what_it_can(made_up):
    study = read_yaml(ROOT / "configs" / "pocket.yaml") | {
        "model": str(made_up),
        "plugins": [str(made_up / "made_up.py")],
        "ablations": ["methods"],
        "overrides": {},
        "model_options": {"newline": "rows"},
    }
    with pytest.raises(ConfigError) as caught:
        parse_study(study)
    found = "\n".join(caught.value.problems)
    assert "parameter of the model family made_up" in found
    with pytest.raises(ConfigError) as caught:
        parse_study(study | {"model_options": {}})
    assert "acts inside the vision encoder" not in "\n".join(caught.value.problems)
    rows = [{"method": "prunesid"}, {"newline": "rows"}, {"scope": "clip"}]
    few = {"methods": {"vary": rows, "across": {"budget": [8]}}}
    with pytest.raises(ConfigError) as caught:
        parse_study(study | {"model_options": {}, "overrides": few})
    found = "\n".join(caught.value.problems)
    assert "scope: 'clip' is no choice in the model family 'made_up'" in found
    assert "newline" not in found


def test_pruned_runs_it(made_up, tiny_llava):
    model = AutoModelForImageTextToText.from_pretrained(tiny_llava).eval()
    processor = AutoProcessor.from_pretrained(tiny_llava)
    text = "USER: <image>\n what color ? ASSISTANT:"
    inputs = processor(images=random_images(1), text=[text], return_tensors="pt")
    found = []
    for model_type in ("llava", "made_up"):
        model.config.model_type = model_type
        with prunesid.pruned(model, processor, "divprune", 5), torch.no_grad():
            found.append(model(**inputs).logits)
    assert torch.equal(*found)


def test_every_adapter_is_declared_and_every_declared_family_has_an_adapter():
    assert families.families() == declared.names()


def test_declarations_and_shipped_models_need_neither_transformers_nor_an_adapter():
    code = """
import sys
from prunesid.families import declared
from prunesid.study.config.model import geometry_of, read_config
from prunesid.study.config.hub_models import hub_models

class Blocked:
    def find_spec(self, name, *rest):
        if name.partition(".")[0] == "transformers":
            raise ImportError(name)

sys.meta_path.insert(0, Blocked())
for model in (*hub_models(), "pocket"):
    assert declared.geometry(read_config(model)).tokens > 0
for model in hub_models():
    assert geometry_of(model).parameters > 1e9
assert not {"transformers", "prunesid.families.base"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True)
