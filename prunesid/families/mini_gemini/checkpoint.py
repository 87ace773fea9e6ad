"""Reading a published Mini-Gemini checkpoint: LLaVA-style shards, and the towers' own weights.

The towers' tensors that a checkpoint holds are used, and a tower that it leaves out is read from
where its `config.json`, or the caller, says it is.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel

from prunesid.families.mini_gemini import names
from prunesid.families.mini_gemini.configuration import translate

# The authors' folders, by their last part -> where the hub has the same weights.
HUB = {
    "clip-vit-large-patch14-336": "openai/clip-vit-large-patch14-336",
    "openclip-convnext-large-d-320-laion2B-s29B-b131K-ft-soup": (
        "laion/CLIP-convnext_large_d_320.laion2B-s29B-b131K-ft-soup"
    ),
}
_INDEX = "model.safetensors.index.json"
_ENDS = ("bos_token_id", "eos_token_id", "pad_token_id")


@dataclass(frozen=True)
class Published:
    """The content of a checkpoint, in the model's own names."""

    config: dict[str, Any]
    tensors: dict[str, Tensor]
    ends: dict[str, Any]
    """Special tokens for the generation configuration."""


@dataclass(frozen=True)
class _Stored:
    """A tensor that is still on disk."""

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


def read_published(
    path: str | Path,
    raw: Mapping[str, Any],
    shapes: Callable[[dict[str, Any]], Mapping[str, tuple[int, ...]]],
    vision_tower: str | Path | None = None,
    vision_tower_aux: str | Path | None = None,
) -> Published:
    """Checkpoint at `path` (a folder or a hub id), whose `config.json` is `raw`.

    `shapes` names the tensors that the model of a configuration has.

    Every tensor has to have its place: ValueError that lists the missing and the unexpected ones.
    """
    config = translate(raw)
    folder = _folder(path)
    found, unexpected = _renamed(folder, names.PUBLISHED)
    places = {
        "vision_tower": _tower(folder, raw["mm_vision_tower"], vision_tower),
        "vision_tower_aux": _tower(folder, raw["mm_vision_tower_aux"], vision_tower_aux),
    }
    if absent := _absent(found, names.TOWER):
        own, tower_config = _clip(_named("vision_tower", raw, places))
        found |= {name: stored for name, stored in own.items() if name.startswith(absent)}
        config["vision_config"] = tower_config
    elif (place := places["vision_tower"]) is not None and Path(place).is_dir():
        config["vision_config"] = CLIPVisionConfig.from_pretrained(place).to_dict()
    elif place is None:
        _named("vision_tower", raw, places)
    if absent := _absent(found, names.TOWER_AUX):
        own, extra = _renamed(_folder(_named("vision_tower_aux", raw, places)), names.OPENCLIP)
        found |= {name: stored for name, stored in own.items() if name.startswith(absent)}
        unexpected += extra
    config["aux_config"] = names.trunk_geometry({n: stored.shape for n, stored in found.items()})
    _check(path, shapes(config), found, unexpected)
    return Published(
        config, {name: stored.read() for name, stored in found.items()}, _ends(folder, raw)
    )


def listed(problems: Mapping[str, Iterable[str]]) -> str:
    """`"missing: a, b; unexpected: c"`, long lists cut."""
    parts = []
    for kind, tensors in problems.items():
        found = sorted(map(str, tensors))
        if found:
            more = f" and {len(found) - 20} more" if len(found) > 20 else ""
            parts.append(f"{kind}: {', '.join(found[:20])}{more}")
    return "; ".join(parts)


def _check(
    path: str | Path,
    wanted: Mapping[str, tuple[int, ...]],
    found: Mapping[str, _Stored],
    unexpected: Iterable[str],
) -> None:
    problems = {
        "missing": wanted.keys() - found.keys(),
        "unexpected": [*unexpected, *(found.keys() - wanted.keys())],
        "of another shape": [
            f"{name} {found[name].shape}, not {shape}"
            for name, shape in wanted.items()
            if name in found and found[name].shape != shape
        ],
    }
    if any(problems.values()):
        raise ValueError(f"The checkpoint {path} does not fit Mini-Gemini: {listed(problems)}")


def _absent(found: Mapping[str, _Stored], parts: tuple[str, ...]) -> tuple[str, ...]:
    """The parts that have no tensor at all."""
    return tuple(part for part in parts if not any(name.startswith(part) for name in found))


def _tower(folder: Path, written: str, given: str | Path | None) -> str | None:
    """Place of a tower: as given, as written (perhaps beside the checkpoint), or on the hub."""
    if given is not None:
        return str(given)
    for place in (Path(written), folder / written):
        if place.is_dir():
            return str(place)
    return HUB.get(Path(written).name)


def _named(field: str, raw: Mapping[str, Any], places: Mapping[str, str | None]) -> str:
    place = places[field]
    if place is None:
        written = raw[f"mm_{field}"]
        raise ValueError(
            f"mm_{field} is {written!r}, neither a folder here nor one of the known towers "
            f"({', '.join(HUB)}): say where it is with {field}=FOLDER_OR_HUB_ID"
        )
    return place


def _folder(path: str | Path) -> Path:
    """The folder itself, or that of a hub id's download, without pickles."""
    if Path(path).is_dir():
        return Path(path)
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(str(path), allow_patterns=["*.safetensors", "*.json"]))


def _renamed(folder: Path, table: names.Table) -> tuple[dict[str, _Stored], list[str]]:
    stored = _stored(folder)
    found, unexpected = names.renamed(stored, table)
    return {target: stored[name] for target, name in found.items()}, unexpected


def _stored(folder: Path) -> dict[str, _Stored]:
    """{name: tensor} of the safetensors in a folder, as its index says if it has one."""
    from safetensors import safe_open

    if (folder / _INDEX).is_file():
        index = json.loads((folder / _INDEX).read_text())["weight_map"]
        files = sorted({folder / name for name in index.values()})
    else:
        files = sorted(folder.glob("*.safetensors"))
        # Some hub folders hold the same weights for several libraries.
        for name in ("open_clip_model.safetensors", "model.safetensors"):
            if folder / name in files:
                files = [folder / name]
                break
    lacking = [file.name for file in files if not file.is_file()]
    if lacking or not files:
        raise ValueError(_no_safetensors(folder, lacking))
    found = {}
    for file in files:
        with safe_open(file, framework="pt") as tensors:
            for name in tensors.keys():  # noqa: SIM118  (not a dict)
                shape = tuple(tensors.get_slice(name).get_shape())
                found[name] = _Stored(shape, partial(_read, file, name))
    return found


def _read(file: Path, name: str) -> Tensor:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as tensors:
        return tensors.get_tensor(name)


def _no_safetensors(folder: Path, lacking: list[str]) -> str:
    what = f"lacks {', '.join(lacking)}" if lacking else "holds no safetensors"
    return (
        f"{folder} {what}. Pickled weights (*.bin, *.pt) are not read, since unpickling a file can "
        "run any code that is in it. Convert them once, where that can do no harm: in a container "
        "without network, `torch.load(file, weights_only=True)` each shard and write it with "
        "`safetensors.torch.save_file`; or let the hub's conversion bot do it "
        "(huggingface.co/spaces/safetensors/convert) and download the revision that it proposes"
    )


def _clip(place: str) -> tuple[dict[str, _Stored], dict[str, Any]]:
    """The tensors of a CLIP's vision tower, by this model's names, and its configuration."""
    loaded: Any = CLIPVisionModel.from_pretrained(
        place, use_safetensors=True, dtype="auto", output_loading_info=True
    )
    model, info = loaded
    if info["missing_keys"]:
        lacking = listed({"missing": info["missing_keys"]})
        raise ValueError(f"The CLIP tower at {place} is not whole: {lacking}")
    prefix = names.TOWER[0]
    found = {
        prefix + name: _Stored(tuple(tensor.shape), tensor.detach)
        for name, tensor in model.state_dict().items()
    }
    return found, model.config.to_dict()


def _ends(folder: Path, raw: Mapping[str, Any]) -> dict[str, Any]:
    # The published sampling settings are not taken over: they clash with greedy decoding.
    file = folder / "generation_config.json"
    own = json.loads(file.read_text()) if file.is_file() else {}
    found = {name: own.get(name, raw.get(name)) for name in _ENDS}
    return {name: value for name, value in found.items() if value is not None}
