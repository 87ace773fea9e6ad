"""A study's checkpoint: its folder, or its files in the local cache, or what the hub has of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from prunesid.families import declared
from prunesid.study.config.weights import INDEX, SINGLE, fields_of, shards
from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding
from prunesid.study.planning.checks.hub import MODEL, Hub, downloadable
from prunesid.study.planning.checks.weights import contradictions

WHAT = "checkpoint"
PICKLED = "has no safetensors weights, the only ones that are read"
# A checkpoint has one file of each line: words of its tokenizer, settings of its processor.
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json")
PROCESSORS = ("preprocessor_config.json", "processor_config.json")
PICKLES = (".bin", ".pt", ".pth")
Find = Callable[[str], Path | None]


def check_folder(folder: Path) -> Finding:
    """A model that transformers saved: configuration, all weights, tokenizer."""
    lacking = absent(lambda name: folder / name if (folder / name).is_file() else None)
    remedy = "save the model and its processor there with save_pretrained()"
    pickled = [path.name for path in sorted(folder.iterdir()) if path.suffix in PICKLES]
    if pickled and {SINGLE} & set(lacking):
        detail = f"{folder} holds pickled weights ({_some(pickled)}), and only safetensors are read"
        remedy = "unpickling can run any code: convert them where that does no harm, by "
        remedy += "torch.load(file, weights_only=True) and safetensors.torch.save_file()"
        return Finding(MISSING, WHAT, detail, remedy)
    if lacking:
        return Finding(MISSING, WHAT, f"{folder} lacks {_some(lacking)}", remedy)
    weights = [folder / name for name in shards(folder / INDEX)]
    files = dict.fromkeys([*sorted(folder.iterdir()), *weights])
    broken = [path.name for path in files if not _is_whole(path)]
    if broken:
        return Finding(MISSING, WHAT, f"{folder}: {_some(broken)} is cut short or broken", remedy)
    wrong = contradictions(folder, weights)
    if wrong:
        detail = f"{folder}: config.json and the weights disagree: {_some(wrong)}"
        return Finding(MISSING, WHAT, detail, remedy)
    return Finding(OK, WHAT, str(folder))


def check_repository(hub: Hub, name: str) -> Finding:
    """A model on the hub, and the bytes that are to be downloaded of it, as far as they can be."""

    def find(file: str) -> Path | None:
        return hub.cached(name, file)

    lacking = absent(find)
    if not lacking:
        return Finding(OK, WHAT, f"{name}, in the local cache")
    part = find("config.json") is not None
    here = f"the local cache lacks {_some(lacking)}" if part else "not in the local cache"
    repository = downloadable(hub, WHAT, name, MODEL, here)
    if isinstance(repository, Finding):
        return repository
    weights = [s or 0 for f, s in repository.files.items() if f.endswith(".safetensors")]
    if not weights:
        return Finding(MISSING, WHAT, f"{name} {PICKLED}", "another repository of the same model")
    size = sum(weights)
    gated = ", gated, access granted" if repository.gated else ""
    detail = f"{name}: {here}; {size / 1e9:,.1f} GB to download{gated}"
    return Finding(OK, WHAT, detail, download=size)


def as_tower(found: Finding) -> Finding:
    """The finding of a text tower's checkpoint, which transformers loads.

    Where its main branch has no safetensors, transformers takes those that the hub's conversion bot
    proposes, if it does.
    """
    found = replace(found, what="text tower")
    if PICKLED not in found.detail:
        return found
    remedy = "the first load asks the hub for a converted revision; or save the model with "
    remedy += "save_pretrained() and name the folder"
    detail = f"{found.detail}, on its main branch"
    return replace(found, state=UNKNOWN, detail=detail, remedy=remedy)


def absent(find: Find) -> list[str]:
    """The files of a checkpoint that cannot be found; every shard that the index names counts."""
    index, config = find(INDEX), find("config.json")
    try:
        weights = [SINGLE] if index is None else shards(index)
    except ValueError:
        weights = [f"a readable {INDEX}"]
    needed = [("config.json",), ("tokenizer_config.json",), TOKENIZERS]
    fields = None if config is None else fields_of(config)
    family = declared.find(str((fields or {}).get("model_type")))
    if family is not None and family.processor:
        needed.append(PROCESSORS)
    needed += [(name,) for name in weights]
    return [" or ".join(names) for names in needed if not any(_found(find, names))]


def _found(find: Find, names: tuple[str, ...]) -> Iterator[bool]:
    for name in names:
        try:
            yield find(name) is not None
        except OSError:  # no file can be called so
            yield False


def _is_whole(path: Path) -> bool:
    """False for a file of the checkpoint that is broken; of weights, header and length are read."""
    from safetensors import SafetensorError, safe_open

    if path.name in ("tokenizer_config.json", "generation_config.json", *TOKENIZERS, *PROCESSORS):
        return path.suffix != ".json" or fields_of(path) is not None
    if path.suffix != ".safetensors":
        return True
    try:
        with safe_open(path, framework="np"):
            return True
    except (SafetensorError, OSError):
        return False


def _some(names: list[str], most: int = 4) -> str:
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(name[:100] for name in names[:most]) + more
