"""The arms and images that the picture of kept patches shows."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesid.core.registry import unknown
from prunesid.study.config.arm import DEFAULT_BUDGET, Arm, make_arm
from prunesid.study.config.documents import ConfigError

# Shown if the study's file names no arms, as far as the study has them: groups in the presets, then
# the other paradigms (attention, merging, diversity), then baselines. Only the first `MOST` count.
USUAL: tuple[tuple[str, Mapping[str, Any]], ...] = (
    ("PruneSID: groups", {}),
    ("matched threshold", {"preset": "matched"}),
    ("released code", {"preset": "release"}),
    ("released code", {"preset": "release_qwen"}),
    ("CLS attention", {"method": "cls_topk"}),
    ("VisionZip: attention, merging", {"method": "visionzip"}),
    ("PruMerge: merging", {"method": "prumerge"}),
    ("DivPrune: diversity", {"method": "divprune"}),
    ("uniform grid", {"method": "grid"}),
    ("random groups", {"grouping": "random"}),
)
MOST = 8


@dataclass(frozen=True)
class Patches:
    """`columns` are arms of the study with the titles above them; `images` is how many rows."""

    benchmark: str
    images: int
    columns: tuple[tuple[str, Arm], ...]


def parse_patches(
    document: Mapping[str, Any], arms: Mapping[str, Sequence[Arm]], labels: Mapping[str, str]
) -> Patches:
    """The picture that a study's `patches` asks for. ConfigError lists every problem with it.

    document  the field as the schema fills it: benchmark, images, arms (settings, or None)
    arms      {benchmark of the study: its arms}
    labels    {name of an arm: its label}
    """
    measured = [name for name, own in arms.items() if any(arm.selects for arm in own)]
    benchmark = document["benchmark"] or (measured or [*arms])[0]
    if benchmark not in arms:
        named = unknown("benchmark of this study", benchmark, arms)
        raise ConfigError([f"benchmark: {named}"])
    known = {arm.name: arm for arm in arms[benchmark] if arm.selects}
    if document["arms"] is None:
        return Patches(benchmark, document["images"], tuple(_usual(known, labels)))
    problems, columns = [], []
    for setting in document["arms"]:
        try:
            arm = make_arm({axis: value for axis, value in setting.items() if axis != "label"})
        except ValueError as error:
            problems.append(f"arms: {error}")
            continue
        if arm.name not in known:
            choices = [*known] or ["none"]
            problems.append(f"arms: {unknown(f'arm on {benchmark}', arm.name, choices)}")
        columns.append((str(setting.get("label", labels.get(arm.name))), arm))
    if problems:
        raise ConfigError(problems)
    return Patches(benchmark, document["images"], tuple(columns))


def _usual(known: Mapping[str, Arm], labels: Mapping[str, str]) -> list[tuple[str, Arm]]:
    """The usual arms at the default budget as far as a study has them, else its first arms."""
    usual = [(label, make_arm({"budget": DEFAULT_BUDGET, **setting})) for label, setting in USUAL]
    found = [(label, known[arm.name]) for label, arm in usual if arm.name in known]
    return (found or [(labels[name], arm) for name, arm in known.items()])[:MOST]
