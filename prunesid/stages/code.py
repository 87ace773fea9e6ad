"""The code that a stage's results depend on: for the keys of the store and the rules of the workflow.

It is the module that computes the stage with all that it imports, and what its arms run through.
Adding or editing a method touches no other's results: what registers itself counts for the arms that
use it alone, and the package that it registers with for the arms of that package. What a study's file
says reaches a stage as values, so that the code which reads the file counts nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from prunesid import encoding, late, methods, models
from prunesid.groupings import GROUPINGS
from prunesid.imports import closure, files_digest
from prunesid.places import PACKAGES, package_of
from prunesid.registry import unknown
from prunesid.scores import SCORES
from prunesid.study.arm import Arm
from prunesid.study.model import read_vision

# What runs the methods of a package, where a stage runs other arms without it.
_RUNNERS = {late: ("prunesid.answering.late",)}
_APART = frozenset(
    {
        __name__,
        "prunesid.places",
        "prunesid.study.config",
        *(package.__name__ for package in PACKAGES.values()),
        *(runner for runners in _RUNNERS.values() for runner in runners),
    }
)
# lmms-eval finds the functions of a task by the names in its YAML.
_TASKS = "prunesid.evaluation.tasks"


@dataclass(frozen=True)
class Stage:
    """Where the code of a stage begins.

    roots   the modules that compute it; a package counts whole
    runs    the packages whose methods it runs
    family  whether it runs the model
    """

    roots: tuple[str, ...]
    runs: tuple[ModuleType, ...] = ()
    family: bool = False


STAGES = {
    "images": Stage(("prunesid.pocket.benchmarks",)),
    "features": Stage(("prunesid.stages.features", _TASKS), family=True),
    "information": Stage(("prunesid.stages.information",)),
    "budgets": Stage(("prunesid.stages.budgets",)),
    "encode": Stage(("prunesid.stages.encoding", _TASKS), (encoding,), family=True),
    "questions": Stage(("prunesid.stages.questions", _TASKS), family=True),
    "select": Stage(("prunesid.stages.selection",), (methods,)),
    "answer": Stage(("prunesid.stages.answers",), (late,), family=True),
    "account": Stage(("prunesid.stages.accounts",), (encoding, methods, late)),
    "score": Stage(("prunesid.stages.scores", _TASKS)),
    "compare": Stage(
        (
            "prunesid.stages.arms",
            "prunesid.study.comparison",
            "prunesid.study.pairs",
            "prunesid.study.strata",
        )
    ),
    "render": Stage(("prunesid.render",)),
    "patches": Stage(("prunesid.render.patches", "prunesid.stages.patches")),
    "notebook": Stage(
        ("prunesid.stages.notebook", "prunesid.study.results", "prunesid.render.theme")
    ),
    "publish": Stage(("prunesid.stages.publication", "prunesid.tracking")),
}


def modules_of(arm: Arm) -> list[str]:
    """The modules that hold an arm's method, grouping and score: an edit to another is no matter."""
    if arm.is_vanilla:
        return []
    resolved = arm.resolved()
    package = package_of(arm.method)
    found = package.modules_of(arm.method)
    # Another method may use the same word for a choice of its own.
    for parameter, registry in (("grouping", GROUPINGS), ("score", SCORES)):
        if package is methods and resolved.get(parameter) in registry.names():
            found += registry.modules_of(resolved[parameter])
    return found


def files_behind(stage: str, arms: Iterable[Arm] = (), model: str = "") -> dict[str, Path]:
    """The files that a stage's results for these arms of a study's `model` depend on, by name.

    Arms that the stage has nothing to do with add nothing. ValueError for an unknown stage or model.
    """
    if stage not in STAGES:
        raise ValueError(unknown("stage", stage, STAGES))
    known = STAGES[stage]
    roots = list(known.roots)
    if known.family:
        roots += family_modules(model)
    for arm in arms:
        package = None if arm.is_vanilla else package_of(arm.method)
        if package is not None and package in known.runs:
            roots += [package.__name__, *_RUNNERS.get(package, ()), *modules_of(arm)]
    return closure(roots, _APART)


def code_of(stage: str, arms: Iterable[Arm] = (), model: str = "") -> str:
    """16 hex digits that change with the content of `files_behind`."""
    return files_digest(files_behind(stage, arms, model))


def family_modules(model: str) -> list[str]:
    """The modules that would load a study's `model`; known before it is downloaded."""
    return models.modules_of(str(read_vision(model).family))
