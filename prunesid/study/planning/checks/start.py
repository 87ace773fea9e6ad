"""What would stop a study after its first job is refused before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

from prunesid.core.registry import unknown
from prunesid.families import declared
from prunesid.images.relevance import TEXT_TOWER
from prunesid.study.config.documents import ConfigError, collecting
from prunesid.study.config.model import folder_of, read_config
from prunesid.study.config.study import Study
from prunesid.study.layout import Layout
from prunesid.study.planning.checks.checkpoint import check_folder
from prunesid.study.planning.checks.finding import OK
from prunesid.study.planning.checks.scores import refuse_unscorable


def refuse_unready(study: Study) -> None:
    """ConfigError, listing all, for a study that is valid and could not run to its end here.

    It looks at the folders of the model and its text tower, at the model's type, at the folder of
    results, and at what scoring needs of benchmarks that have no scores yet.
    """
    problems = [*_model(study.model), *_tower(study), *_results(study.results)]
    layout = Layout.of(study)
    for asked in study.benchmarks:
        if not layout.scores(asked.name).is_file():
            with collecting(problems):
                try:
                    refuse_unscorable(asked)
                except ValueError as error:
                    raise ConfigError([f"benchmark {asked.name}: {error}"]) from error
    if problems:
        raise ConfigError(problems)


def _model(model: str) -> Iterator[str]:
    model_type = str(read_config(model).get("model_type"))
    if declared.find(model_type) is None:
        yield f"model: {unknown('model family', model_type, declared.names())}"
    folder = folder_of(model)
    if folder.is_dir() and (found := check_folder(folder)).state != OK:
        yield f"model: {found.detail}; {found.remedy}"


def _tower(study: Study) -> Iterator[str]:
    named = dict(study.model_options).get(TEXT_TOWER)
    if named is not None and Path(named).is_dir():
        found = check_folder(Path(named))
        if found.state != OK:
            yield f"model_options.{TEXT_TOWER}: {found.detail}; {found.remedy}"


def _results(folder: Path) -> Iterator[str]:
    """Why nothing can be written to the folder, or made where it is to be."""
    resolved = folder.resolve()
    there = next(path for path in (resolved, *resolved.parents) if path.exists())
    try:
        # The permissions alone do not tell: root has them on /proc.
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        yield f"results: nothing can be written to {there} ({error.strerror}); name another folder"
