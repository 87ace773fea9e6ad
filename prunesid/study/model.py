"""What a study has to know of its model before anything runs: its config.json."""

import json
from dataclasses import dataclass
from pathlib import Path

from prunesid.registry import unknown
from prunesid.study.documents import ConfigError

POCKET = "pocket"
WEIGHTS = Path(__file__).resolve().parents[1] / "pocket" / "weights"


@dataclass(frozen=True)
class Vision:
    """What a model's config.json says of what images meet; None where it says nothing.

    tokens  patch tokens per image
    depth   blocks of the vision tower
    layers  layers of the language model
    """

    tokens: int | None = None
    depth: int | None = None
    layers: int | None = None


def read_vision(model: str) -> Vision:
    """The vision tower of a study's `model`; ConfigError where there is no such model."""
    described = model_config(model)
    config = json.loads(described.read_text(encoding="utf-8"))
    vision, decoder = (config.get(f"{part}_config") or {} for part in ("vision", "text"))
    size, patch = vision.get("image_size"), vision.get("patch_size")
    tokens = (size // patch) ** 2 if isinstance(size, int) and isinstance(patch, int) else None
    depth, layers = (part.get("num_hidden_layers") for part in (vision, decoder))
    return Vision(
        tokens,
        depth if isinstance(depth, int) else None,
        layers if isinstance(layers, int) else None,
    )


def model_config(model: str) -> Path:
    """The model's config.json. ConfigError, naming the choices, where there is no such model."""
    if model == POCKET:
        config = WEIGHTS / "config.json"
        if config.is_file():
            return config
        raise ConfigError(["model: Pocket-LLaVA's weights are missing; `make pocket` trains them"])
    path = Path(model).expanduser()
    if (path / "config.json").is_file():
        return path / "config.json"
    if path.exists():
        raise ConfigError(
            [f"model: '{model}' holds no config.json; it is no model saved by transformers"]
        )
    if model.count("/") == 1 and not model.startswith((".", "~", "/")):
        from huggingface_hub import try_to_load_from_cache

        cached = try_to_load_from_cache(model, "config.json")
        if isinstance(cached, str):
            return Path(cached)
        raise ConfigError(
            [
                f"model: there is no folder '{model}' and no such model in the local Hugging Face "
                f"cache; `hf download {model}` fetches it, 'pocket' is the embedded model"
            ]
        )
    near = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    found = unknown("model", path.name, [POCKET, *near])
    raise ConfigError([f"model: there is no folder '{model}'. {found}"])
