"""The code that a stage's results depend on, for keys of the store and rules of the workflow.

The code is the module that computes the stage, all that it imports, and the methods that its arms
use. A method counts only for the arms that use it, so adding or editing a method leaves the results
of all others valid. The package that a method registers with counts for the arms of that package.
A study's file reaches a stage as values, so the code that reads the file does not count.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from prunesid import families
from prunesid.core.imports import closure, files_digest
from prunesid.core.registry import unknown
from prunesid.methods.features.prunesid.groupings import GROUPINGS
from prunesid.methods.features.prunesid.scores import SCORES
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, METHODS, PACKAGES, package_of
from prunesid.study.config.arm import Arm
from prunesid.study.config.model import read_vision

# {package: modules that run its methods}, which arms without such a method do not need.
_RUNNERS = {PACKAGES[DECODER]: ("prunesid.generate.late",)}
_APART = frozenset(
    {
        __name__,
        "prunesid.study.config.study",
        *PACKAGES.values(),
        *(runner for runners in _RUNNERS.values() for runner in runners),
    }
)
# lmms-eval finds the functions of a task by the names in its YAML.
_TASKS = "prunesid.lmms.tasks"


@dataclass(frozen=True)
class Stage:
    """The modules at which the code of a stage begins.

    roots   modules that compute the stage; a package counts whole
    runs    places whose methods the stage runs
    family  whether the stage runs the model
    """

    roots: tuple[str, ...]
    runs: tuple[str, ...] = ()
    family: bool = False


STAGES = {
    "images": Stage(("prunesid.pocket.benchmarks",)),
    "features": Stage(("prunesid.study.stages.features", _TASKS), family=True),
    "information": Stage(("prunesid.study.stages.information",)),
    "budgets": Stage(("prunesid.study.stages.budgets",)),
    "encode": Stage(("prunesid.study.stages.encoding", _TASKS), (ENCODER,), family=True),
    "questions": Stage(("prunesid.study.stages.questions", _TASKS), family=True),
    "select": Stage(("prunesid.study.stages.selection",), (FEATURES,)),
    "answer": Stage(("prunesid.study.stages.answers",), (DECODER,), family=True),
    "measure": Stage(
        ("prunesid.study.stages.measure", _TASKS), (ENCODER, FEATURES, DECODER), family=True
    ),
    "account": Stage(("prunesid.study.stages.costs",), (ENCODER, FEATURES, DECODER)),
    "score": Stage(("prunesid.study.stages.scores", _TASKS)),
    "compare": Stage(
        (
            "prunesid.study.analysis.arm_facts",
            "prunesid.study.analysis.comparison",
            "prunesid.study.analysis.pairs",
            "prunesid.study.analysis.strata",
        )
    ),
    "render": Stage(("prunesid.study.report",)),
    "export": Stage(("prunesid.study.report.evaluations",)),
    "travel": Stage(("prunesid.study.report.travel",)),
    "front": Stage(("prunesid.study.report.front", "prunesid.study.report.templates")),
    "patches": Stage(("prunesid.study.report.kept_patches", "prunesid.study.stages.patches")),
    "notebook": Stage(
        (
            "prunesid.study.report.notebook",
            "prunesid.study.report.templates",
            "prunesid.study.analysis.results",
            "prunesid.study.report.theme",
        )
    ),
    "explorer": Stage(("prunesid.study.explorer", _TASKS)),
    "publish": Stage(("prunesid.study.tracking.study_runs", "prunesid.study.tracking")),
}


def modules_of(arm: Arm) -> list[str]:
    """The modules that hold an arm's method, grouping and score; others do not matter."""
    if arm.is_vanilla:
        return []
    resolved = arm.resolved()
    package = package_of(arm.method)
    found = METHODS.modules_of(arm.method)
    # Another method may use the same word for a choice of its own.
    for parameter, registry in (("grouping", GROUPINGS), ("score", SCORES)):
        if package == PACKAGES[FEATURES] and resolved.get(parameter) in registry.names():
            found += registry.modules_of(resolved[parameter])
    return found


def stage_files(stage: str, arms: Iterable[Arm] = (), model: str = "") -> dict[str, Path]:
    """The files that a stage's results for these arms of a study's `model` depend on, by name.

    Arms that the stage does not concern add nothing. ValueError for an unknown stage or model.
    """
    if stage not in STAGES:
        raise ValueError(unknown("stage", stage, STAGES))
    known = STAGES[stage]
    roots = list(known.roots)
    if known.family:
        roots += family_modules(model)
    for arm in arms:
        if not arm.is_vanilla and METHODS[arm.method].place in known.runs:
            package = package_of(arm.method)
            roots += [package, *_RUNNERS.get(package, ()), *modules_of(arm)]
    return closure(roots, _APART)


def code_of(stage: str, arms: Iterable[Arm] = (), model: str = "") -> str:
    """16 hex digits that change with the content of `stage_files`."""
    return files_digest(stage_files(stage, arms, model))


def family_modules(model: str) -> list[str]:
    """The modules that would load a study's `model`; known before it is downloaded."""
    return families.modules_of(str(read_vision(model).family))
