"""A study of several models: chapters, each the study of one model in a file of its own.

    title: PruneSID on embedded models
    chapters: [pocket.yaml, pocket_next.yaml]
    limit: 20

The files are looked up beside the study's own, then in the repository's configs/. Further fields,
`limit` here, take the place of those of every chapter. A file without `chapters` is one chapter.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from prunesid.core.registry import unknown
from prunesid.study.clone import in_clone
from prunesid.study.config.ablation import Ablation
from prunesid.study.config.documents import (
    ConfigError,
    Document,
    check,
    collecting,
    path_problem,
    read_schema,
)
from prunesid.study.config.plugins import forget_plugins, load_plugins
from prunesid.study.config.study import Study, parse_study, study_document

CHAPTERS = "chapters"
# Together they are one study: one folder, one place of publication.
SHARED = ("results", "wandb", "trackio")
# With fewer methods an order of them says nothing.
METHODS = 5


@dataclass(frozen=True)
class Chapter:
    """A study of one model; its ablations and benchmarks are looked up in `folder` first."""

    study: Study
    document: Document
    folder: Path

    @property
    def name(self) -> str:
        """The name of the model's results folder, with '_' for what a rule's name cannot have."""
        return "".join(letter if letter.isalnum() else "_" for letter in self.study.model_name)


@dataclass(frozen=True)
class Whole:
    """A study of any number of models."""

    title: str
    chapters: tuple[Chapter, ...]

    @property
    def studies(self) -> tuple[Study, ...]:
        return tuple(chapter.study for chapter in self.chapters)

    @property
    def compared(self) -> tuple[tuple[Study, Ablation], ...]:
        """(study, ablation) of every chapter with an ablation to compare with other chapters."""
        found = ((study, compared(study)) for study in self.studies)
        return tuple((study, ablation) for study, ablation in found if ablation is not None)

    @property
    def results(self) -> Path:
        return self.studies[0].results


def load_whole(path: Path) -> Whole:
    """The study in a YAML file. ConfigError lists every problem of all chapters."""
    return read_whole([path])


def read_whole(paths: Sequence[Path], given: Mapping[str, Any] | None = None) -> Whole:
    """The study in the last of some files, as `study.study_document` reads them."""
    try:
        return _whole(paths, given)
    except (OSError, RuntimeError) as error:
        raise ConfigError([f"{paths[-1]}: {path_problem(error)}"]) from error


def _whole(paths: Sequence[Path], given: Mapping[str, Any] | None) -> Whole:
    document, folder = study_document(paths, given), paths[-1].resolve().parent
    if CHAPTERS not in document.value:
        study = parse_study(document, folder=folder)
        return Whole(study.title, (Chapter(study, document, folder),))
    check(document, read_schema(CHAPTERS))
    problems: list[str] = []
    over = {k: v for k, v in document.value.items() if k not in (CHAPTERS, "title")}
    places = {at: place for at, place in document.places.items() if at.partition(".")[0] in over}
    chapters = []
    for name in document.value[CHAPTERS]:
        # As in the jobs of its own, a chapter knows the plug-ins that it names and no others.
        forget_plugins()
        with collecting(problems, document):
            path = _find(folder, name)
            with collecting(problems):
                below = study_document([path])
                if CHAPTERS in below.value:
                    said = "is a study of several models, and no chapter of one"
                    raise ConfigError([below.at(f"{CHAPTERS}: '{name}' {said}")])
                own = Document(over, document.origin, places).over(below, True)
                study = parse_study(own, folder=path.resolve().parent)
                chapters.append(Chapter(study, own, path.resolve().parent))
    with collecting(problems, document, CHAPTERS):
        # One process plans all of them, and finds a method by its name.
        load_plugins([str(path) for each in chapters for path in each.study.plugins], folder)
    with collecting(problems, document):
        _check_together(chapters)
    if problems:
        raise ConfigError(problems)
    return Whole(document.value["title"], tuple(chapters))


def compared(study: Study) -> Ablation | None:
    """The ablation whose methods are compared with other studies'; None where there is none.

    The first with at least `METHODS` different methods whose columns are budgets and nothing else.
    """
    for ablation in study.ablations:
        methods = {arm.method for arm in ablation.arms if not arm.is_vanilla}
        across = {axis for column in ablation.columns for axis, _ in column.values}
        if len(methods) >= METHODS and across <= {"budget"}:
            return ablation
    return None


def rendered_by(chapters: Sequence[Chapter], rendered: Sequence[str]) -> dict[str, list[str]]:
    """{chapter: the tasks whose images it renders}; the first chapter with a task renders it."""
    owners: dict[str, str] = {}
    for chapter in chapters:
        for benchmark in chapter.study.encoded:
            if benchmark.task in rendered:
                owners.setdefault(benchmark.task, chapter.name)
    return {c.name: [t for t, owner in owners.items() if owner == c.name] for c in chapters}


def _find(folder: Path, name: str) -> Path:
    folders = [each for each in (folder, in_clone("configs")) if each is not None]
    for each in folders:
        # A file that exists but cannot be read gives an error of its own later.
        if os.path.lexists(each / name):
            return each / name
    known = {path.name for each in folders for path in each.glob("[!.]*.yaml")}
    raise ConfigError([f"{CHAPTERS}: {unknown('chapter', name, known)}"])


def _mixed_up(one: Chapter, other: Chapter) -> list[str]:
    """A problem if the name of `other` is that of `one` and then `_ablation_...`, like a rule's."""
    rest = other.name.removeprefix(f"{one.name}_")
    if rest == other.name or not f"{rest}_".startswith("ablation_"):
        return []
    return [
        f"{CHAPTERS}: '{other.study.title}' is named {other.study.model_name}, as rules of "
        f"'{one.study.title}' are; give one of them another `name`"
    ]


def _check_together(chapters: Sequence[Chapter]) -> None:
    problems = []
    for one, other in combinations(chapters, 2):
        first, second = one.study, other.study
        names = f"'{first.title}' and '{second.title}'"
        folders = sorted({first.model_name, second.model_name})
        if len(folders) == 1:
            problems.append(
                f"{CHAPTERS}: {names} have one folder of results, {folders[0]}; give one of them "
                "another `name`"
            )
        elif one.name.casefold() == other.name.casefold():
            problems.append(
                f"{CHAPTERS}: {names} are named {' and '.join(folders)}, which differ in case, "
                "'-', '.' and '_' alone and would be mixed up; give one of them another `name`"
            )
        else:
            problems += _mixed_up(one, other) + _mixed_up(other, one)
        problems += [
            f"{CHAPTERS}: {names} have different {field}; name it beside `{CHAPTERS}`"
            for field in SHARED
            if getattr(first, field) != getattr(second, field)
        ]
        both = {b.task for b in first.encoded} & {b.task for b in second.encoded}
        if both and first.limit != second.limit:
            problems.append(
                f"{CHAPTERS}: {names} share {', '.join(sorted(both))} and have different limits; "
                f"name one `limit` beside `{CHAPTERS}`"
            )
    if problems:
        raise ConfigError(problems)
