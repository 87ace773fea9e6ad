"""Model families: images -> VisionRecord, kept tokens -> language model.

A family is one file (or one package) in this folder that registers an adapter for its
`config.model_type`, and one of the same name in `declared`, which says what it can do and how
large its models are; nothing outside this folder knows which family runs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prunesid.core.delayed import torch
from prunesid.core.parameters import Param
from prunesid.core.registry import Registry, unknown
from prunesid.families.adapter import Prompt
from prunesid.families.declared import Family, family_of, find

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from prunesid.families.base import Adapter

__all__ = [
    "Family",
    "Prompt",
    "adapt",
    "check_options",
    "families",
    "family_of",
    "load",
    "modules_of",
    "options_of",
    "parse_dtype",
    "register",
]

_FAMILIES: Registry[Any] = Registry("model family", __name__, group="prunesid.families")
_DTYPES = ("float32", "bfloat16", "float16")


def register(model_type: str) -> Callable[[Any], Any]:
    """Class decorator: checkpoints whose config says `model_type` use the class's `load`."""
    return _FAMILIES.register(model_type)


def families() -> list[str]:
    """Names of the supported model types, sorted."""
    return _FAMILIES.names()


def parse_dtype(dtype: str | torch.dtype) -> torch.dtype:
    """`"float32"`, `"bfloat16"`, `"float16"` or the torch dtype; ValueError otherwise."""
    name = str(dtype).removeprefix("torch.")
    if name not in _DTYPES:
        raise ValueError(unknown("dtype", name, _DTYPES))
    return getattr(torch, name)


def load(
    path: str | Path,
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    **options: object,
) -> Adapter:
    """The adapter of the checkpoint at `path` (a folder or a hub id), ready for inference.

    Only safetensors weights are read. `options` are the family's own (`options_of`). ValueError if
    there is no such model, its model type has no adapter, or for unknown options.
    """
    return _family(path).load(path, torch.device(device), parse_dtype(dtype), **options)


def check_options(model_type: str, options: Mapping[str, object]) -> None:
    """ValueError, naming the choices, where a checkpoint of this type cannot be loaded so."""
    _FAMILIES[family_of(model_type).name].checked(model_type, options)


def options_of(path: str | Path) -> Mapping[str, Param]:
    """Choices of a user when loading the checkpoint at `path`."""
    return _family(path).OPTIONS


def adapt(model: Any, processor: Any, **options: object) -> Adapter:
    """The adapter of a model that is loaded already."""
    family = find(model.config.model_type)
    name = model.config.model_type if family is None else family.name
    return _FAMILIES[name](model, processor, **options)


def modules_of(model_type: str) -> list[str]:
    """The modules, or the package, that load checkpoints of this type; ours are not imported.

    ValueError, naming the choices, for an unknown type.
    """
    family = find(model_type)
    name = model_type if family is None else family.name
    own = f"{__name__}.{name}"
    if find_spec(own) is not None:
        return [own]
    # The registry names the module of a method `run`, which an adapter may inherit.
    return list(dict.fromkeys([_FAMILIES[name].__module__, *_FAMILIES.modules_of(name)]))


def _family(path: str | Path) -> Any:
    from transformers import AutoConfig

    # Families that transformers lacks teach it their configurations.
    _FAMILIES.names()
    try:
        config = AutoConfig.from_pretrained(path, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ValueError(f"No model at {path}: {error}") from error
    return _FAMILIES[config.model_type]
