"""A study's model before anything runs: its config.json.

The file is read where the model lies: in its folder or in the local Hugging Face cache. Of the
published models in configs/hub/models.yaml enough is known without it, so that a study of
them can be planned, checked and estimated before a checkpoint is downloaded.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from prunesid.core.costs import EncoderShape
from prunesid.core.registry import unknown
from prunesid.families import declared
from prunesid.families.declared import Geometry
from prunesid.images.relevance import ALIKE
from prunesid.pocket import EMBEDDED
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.hub_models import hub_models
from prunesid.study.config.weights import stored

POCKET = "pocket"
PARTS = ("vision_config", "text_config", "aux_config")


@dataclass(frozen=True)
class Vision:
    """Facts of a model's config.json about its images and layers; None where it says nothing.

    tokens    patch tokens of an image with the most crops, or of a clip
    depth     blocks of the vision tower
    layers    layers of the language model
    family    model type
    encoding  sizes that methods in the encoder plan with; also None if the family takes none
    axes      rotary positions of a token in the language model
    crops     crops of an image at the most, or frames of a clip
    """

    tokens: int | None = None
    depth: int | None = None
    layers: int | None = None
    family: str | None = None
    encoding: EncoderShape | None = None
    axes: int = 1
    crops: int = 1


def read_vision(model: str) -> Vision:
    """The vision tower of a study's `model`; ConfigError where there is no such model."""
    return vision_of(read_config(model))


def vision_of(config: Mapping[str, Any], frames: int | None = None) -> Vision:
    """The facts of a config.json; of an unknown model type, those that can be read all the same.

    frames  of a clip; None for images
    """
    known = declared.geometry(config, frames)
    if known is not None:
        return Vision(
            tokens=known.tokens if known.fixed else None,
            depth=known.tower.layers,
            layers=known.decoder.layers,
            family=declared.family_of(str(config.get("model_type"))).name,
            encoding=known.encoding,
            axes=known.axes,
            crops=known.crops,
        )
    vision, decoder = (config.get(f"{part}_config") or {} for part in ("vision", "text"))
    stated = [vision.get("image_size"), vision.get("patch_size")]
    stated += [part.get("num_hidden_layers") for part in (vision, decoder)]
    size, patch, depth, layers = (n if isinstance(n, int) else None for n in stated)
    tokens = (size // patch) ** 2 if size is not None and patch else None
    return Vision(tokens, depth, layers, config.get("model_type"))


def read_config(model: str) -> Mapping[str, Any]:
    """The model's config.json: the file, completed by the table of published models.

    ConfigError, naming the choices, where there is no such model, or nothing is known of it yet,
    or where the file's numbers are not the sizes of a model.
    """
    path, published = model_config(model), hub_models().get(model)
    below = {} if published is None else published.config
    if path is not None:
        config = _over(below, _stated(path))
        try:
            declared.geometry(config)
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            raise _no_sizes(path, error) from error
        return config
    if published is not None:
        return published.config
    known = unknown("model", model, [*EMBEDDED, *hub_models()])
    raise ConfigError(
        [
            f"model: there is no folder '{model}' and no such model in the local Hugging Face "
            f"cache; `hf download {model} config.json` fetches the few kilobytes that planning "
            f"needs, and `make check` lists whatever else is missing. {known}"
        ]
    )


def _no_sizes(path: Path | None, error: Exception) -> ConfigError:
    said = " ".join(str(error).split())
    return ConfigError([f"model: {path}: no model has these sizes: {said}"])


def _stated(path: Path, field: str = "model") -> Mapping[str, Any]:
    """The mapping in a config.json, whose parts are mappings too; ConfigError where it is none."""
    try:
        stated = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError([f"{field}: {path} cannot be read: {error}"]) from error
    parts = {"it": stated}
    if isinstance(stated, dict):
        parts |= {name: stated[name] for name in PARTS if stated.get(name) is not None}
    for name, part in parts.items():
        if not isinstance(part, dict):
            kind = type(part).__name__
            raise ConfigError([f"{field}: {path}: {name} is a {kind}, where a mapping is expected"])
    return stated


def _over(below: Mapping[str, Any], stated: Mapping[str, Any]) -> dict[str, Any]:
    """`below` with the values of `stated` over it, nested mappings alike."""
    parts = {
        name: _over(below[name], part)
        for name, part in stated.items()
        if isinstance(part, dict) and isinstance(below.get(name), dict)
    }
    return {**below, **stated, **parts}


def geometry_of(model: str, frames: int | None = None) -> Geometry:
    """The sizes of a study's model, for clips of `frames` frames or, where that is None, images.

    ConfigError for a model type that is not known.
    """
    config = read_config(model)
    found = declared.geometry(config, frames)
    if found is None:
        stranger = unknown("model family", str(config.get("model_type")), declared.names())
        raise ConfigError([f"model: {stranger}"])
    published = hub_models().get(model)
    if published is not None and published.parameters is not None:
        count = published.parameters
        return replace(found, counted=lambda: count)

    def counted() -> int:
        count = stored(folder_of(model))
        try:
            return found.parameters if count is None else count
        except ValueError as error:
            raise _no_sizes(model_config(model), error) from error

    return replace(found, counted=counted)


def folder_of(model: str) -> Path:
    """The folder of a study's `model`, whether or not there is one."""
    return EMBEDDED.get(model) or Path(model).expanduser()


def is_hub_name(model: str) -> bool:
    """True if a study's `model` names one on the Hugging Face hub."""
    return _is_like_hub_name(model) and not Path(model).exists() and not _hub_refusal(model)


def check_tower(tower: str, field: str, config: Mapping[str, Any]) -> None:
    """ConfigError for a text tower that is neither the folder of a CLIP model nor a hub name.

    Also if a folder's config.json gives the vision tower other sizes than the model's `config`.
    """
    if is_hub_name(tower):
        return
    if not Path(tower).is_dir():
        raise ConfigError(
            [f"{field}: there is no folder '{tower}'{_no_hub_name(tower)}; name a CLIP model"]
        )
    stated = _stated(Path(tower) / "config.json", field)
    if (kind := stated.get("model_type")) != "clip":
        raise ConfigError([f"{field}: '{tower}' holds a model of type {kind!r}, where CLIP is due"])
    own, vision = (each.get("vision_config") or {} for each in (stated, config))
    for name in ALIKE:
        if name in own and name in vision and own[name] != vision[name]:
            raise ConfigError(
                [
                    f"{field}: '{tower}' belongs to a vision tower of {name} {own[name]!r}, and "
                    f"the model's has {vision[name]!r}"
                ]
            )


def _is_like_hub_name(model: str) -> bool:
    return model.count("/") == 1 and not model.startswith((".", "~", "/"))


def _hub_refusal(name: str) -> str:
    """Why the hub can have no repository of this name; empty where it can."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    try:
        validate_repo_id(name)
    except HFValidationError as error:
        return str(error).rstrip(".")
    return ""


def _no_hub_name(name: str) -> str:
    """Words to add to 'there is no such folder': why the hub has no such name; '' if it may."""
    refused = _hub_refusal(name) if _is_like_hub_name(name) else ""
    return f", and it is no name on the Hugging Face hub ({refused})" if refused else ""


def model_config(model: str) -> Path | None:
    """The model's config.json; None for a model on the hub that the local cache does not have.

    ConfigError, naming the choices, where there is no such model.
    """
    if model in EMBEDDED:
        config = EMBEDDED[model] / "config.json"
        if config.is_file():
            return config
        raise ConfigError([f"model: {config} is missing; `make pocket` trains embedded models"])
    path = folder_of(model)
    if (path / "config.json").is_file():
        return path / "config.json"
    if path.exists():
        raise ConfigError(
            [f"model: '{model}' holds no config.json; it is no model saved by transformers"]
        )
    if is_hub_name(model):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
        return Path(cached) if isinstance(cached, str) else None
    near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    found = unknown("model", path.name, [*EMBEDDED, *near])
    raise ConfigError([f"model: there is no folder '{model}'{_no_hub_name(model)}. {found}"])
