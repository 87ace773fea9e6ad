"""Whatever a file from outside holds, it is read, or refused by a message that names it."""

import json

import numpy as np
import pytest
import yaml
from builders.videos import write_video
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image

from prunesid.images.media import media_of
from prunesid.study.config.documents import ConfigError, read_document, read_schema
from prunesid.study.config.model import read_config, vision_of
from prunesid.study.config.study import parse_study, study_document
from prunesid.study.planning.checks.checkpoint import INDEX, SINGLE, check_folder
from prunesid.study.planning.checks.finding import MISSING

quick = settings(
    derandomize=True,
    max_examples=60,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner),
    max_leaves=8,
)
FIELDS = {name: sorted(read_schema(name)["properties"]) for name in ("config", "ablation")}


def refusal(read, kind=ConfigError):
    """The message with which a file is refused, None where it is read; any other error is one."""
    try:
        read()
    except kind as error:
        return str(error)
    return None


def mostly(fields, usual):
    """Fields of a schema with values of any kind, on top of what is right."""
    return st.dictionaries(st.sampled_from(fields) | st.text(max_size=8), values, max_size=3).map(
        lambda changed: usual | changed
    )


@quick
@given(st.binary(max_size=200) | st.text(max_size=200).map(str.encode))
@example(b"\xff\xfe")
@example(b"a: &a [*a]")
@example(b"? [a]\n: b")
@example(b"[" * 3000)
@example(b"- !!timestamp 2001-99-99")
@example(b"!!int x")
@example(rb'"\ud800"')
@example(b"a: .nan\n<<: {b: 1}")
def test_any_bytes_are_a_document_or_refused(tmp_path, content):
    path = tmp_path / "any.yaml"
    path.write_bytes(content)
    refused = refusal(lambda: read_document(path))
    if refused is not None:
        assert str(path) in refused
    else:
        places = read_document(path).places.values()
        assert all(place.startswith(str(path)) for place, _ in places)


@quick
@given(values)
def test_what_is_written_as_yaml_is_read_back(tmp_path, value):
    path = tmp_path / "any.yaml"
    path.write_text(json.dumps(value), encoding="utf-8")
    if "NaN" not in path.read_text() and "Infinity" not in path.read_text():
        assert read_document(path).value == json.loads(path.read_text())


STUDY = {"title": "T", "model": "pocket", "benchmarks": ["pocket_pope"], "ablations": ["mine"]}
ABLATION = {"title": "A", "vary": {"method": ["prunesid", "grid"]}, "across": {"budget": [64]}}


@quick
@given(mostly(FIELDS["config"], STUDY), mostly(FIELDS["ablation"], ABLATION))
def test_any_study_is_read_or_refused(tmp_path, study, ablation):
    (tmp_path / "ablations").mkdir(exist_ok=True)
    (tmp_path / "ablations" / "mine.yaml").write_text(yaml.safe_dump(ablation), encoding="utf-8")
    path = tmp_path / "study.yaml"
    path.write_text(yaml.safe_dump(study), encoding="utf-8")
    for document in (study, None):
        refused = refusal(
            lambda given=document: parse_study(given or study_document([path]), folder=tmp_path)
        )
        assert refused is None or refused.startswith(tuple("123456789"))


@quick
@given(mostly(["model_type", "vision_config", "text_config", "image_grid_pinpoints"], {}))
@example({"model_type": "llava", "vision_config": {"image_size": [336], "patch_size": 0}})
@example({"model_type": "llava_next", "vision_config": {"model_type": "clip_vision_model"}})
def test_any_config_json_is_read_or_refused(tmp_path, config):
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert "model: " in (refusal(lambda: vision_of(read_config(str(tmp_path)))) or "model: ")


@quick
@given(st.binary(max_size=100), st.binary(max_size=100))
@example(b'{"weight_map": {"a": 1}}', b"")
def test_any_checkpoint_that_is_none_is_refused(tmp_path, index, weights):
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json"):
        (tmp_path / name).write_text('{"a": 1}')
    (tmp_path / SINGLE).write_bytes(weights)
    assert check_folder(tmp_path).state == MISSING
    (tmp_path / INDEX).write_bytes(index)
    assert check_folder(tmp_path).state == MISSING
    (tmp_path / INDEX).unlink()


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The bytes of good media, by suffix."""
    folder = tmp_path_factory.mktemp("media")
    picture = Image.fromarray(np.arange(1200, dtype=np.uint8).reshape(20, 20, 3))
    found = {}
    for suffix in ("png", "jpg", "bmp", "webp", "tif"):
        picture.save(folder / f"a.{suffix}")
        found[suffix] = (folder / f"a.{suffix}").read_bytes()
    for suffix in ("mp4", "avi", "mkv", "gif"):
        found[suffix] = write_video(folder / f"v.{suffix}", 6).read_bytes()
    return found


@settings(quick, max_examples=150)
@given(data=st.data())
def test_any_damage_to_media_is_read_or_refused(tmp_path, whole, data):
    suffix = data.draw(st.sampled_from(sorted(whole)))
    content = bytearray(whole[suffix])
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 1))
        content[at] = data.draw(st.integers(0, 255))
    path = tmp_path / f"damaged.{suffix}"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    assert path.name in (refusal(lambda: media_of([path], frames=3), ValueError) or path.name)
