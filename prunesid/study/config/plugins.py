"""Methods, groupings and scores in files of the user's own, which a study names in `plugins`.

A plug-in is one `.py` file, or a folder with an `__init__.py` where one file is not enough. It
registers what it adds by the same decorators as the library's own files. Its source is part of the
key of every arm that uses it, wherever the file lies: moving it reruns nothing, editing it does.
"""

import ast
import importlib.util
import sys
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path

from prunesid.core.files import digest, file_digest
from prunesid.core.names import NAME, RULE
from prunesid.core.registry import owned_by, unknown, withdraw
from prunesid.study.config.documents import ConfigError

_PREFIX = "prunesid_plugin_"
_LOADED: dict[str, tuple[Path, str]] = {}


def find_plugins(names: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Where the plug-ins lie, each once; relative names start at `folder`. None of them runs.

    ConfigError lists every one that is missing, bears another's name, or is no Python.
    """
    paths = tuple(dict.fromkeys((folder / Path(name).expanduser()).resolve() for name in names))
    problems = [problem for path in paths for problem in _wrong(path)]
    stems = [path.stem for path in paths]
    for stem in sorted({stem for stem in stems if stems.count(stem) > 1}):
        both = " and ".join(str(path) for path in paths if path.stem == stem)
        problems.append(
            f"plugins: there are two of the name '{stem}', which is what arms know them by; rename "
            f"one: {both}"
        )
    if problems:
        raise ConfigError(problems)
    return paths


def load_plugins(names: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Load the plug-ins and return where they lie, as `find_plugins` does.

    What has not changed since it was last loaded is left as it is; what has is loaded again.
    ConfigError lists every one that fails, with file and line.
    """
    paths = find_plugins(names, folder)
    problems = [problem for path in paths for problem in _load(path)]
    if problems:
        raise ConfigError(problems)
    return paths


def forget_plugins() -> None:
    """Withdraw all that plug-ins have registered."""
    for name in list(_LOADED):
        _forget(name)


def files_of(plugin: Path) -> list[Path]:
    """The source files of a plug-in. Hidden files, such as an editor's locks, are none."""
    if not plugin.is_dir():
        return [plugin]
    return [
        path
        for path in sorted(plugin.rglob("*.py"))
        if not any(part.startswith(".") for part in path.relative_to(plugin).parts)
    ]


def _wrong(path: Path) -> Iterator[str]:
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            yield f"plugins: the folder {path} has no __init__.py"
        yield from _unreadable(path)
    elif not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py"))
        yield f"plugins: there is no file {path}. {unknown('plug-in', path.name, near)}"
    elif path.suffix != ".py":
        yield f"plugins: {path} is no Python file (.py)"
    else:
        yield from _unreadable(path)
    if not NAME.fullmatch(path.stem):
        yield f"plugins: {path.name}: {RULE}"


def _unreadable(plugin: Path) -> Iterator[str]:
    # All files of a folder, imported or not, are part of the keys of its arms.
    for file in files_of(plugin):
        try:
            ast.parse(file.read_bytes())
        except OSError as error:
            yield f"plugins: {file} cannot be read: {error.strerror}"
        except (SyntaxError, ValueError) as error:
            line = getattr(error, "lineno", None)
            place = f"{file}, line {line}" if line else file
            yield f"plugins: {place}: SyntaxError: {getattr(error, 'msg', error)}"


def _load(path: Path) -> Iterator[str]:
    name = _PREFIX + path.stem
    state = path, digest({str(p): file_digest(p) for p in files_of(path)})
    if _LOADED.get(name) == state:
        return
    _forget(name)
    origin = path / "__init__.py" if path.is_dir() else path
    spec = importlib.util.spec_from_file_location(
        name, origin, submodule_search_locations=[str(path)] if path.is_dir() else None
    )
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    # What an arm depends on is found under the module's name, and so are the plug-in's own imports.
    sys.modules[name] = module
    try:
        with owned_by(name):
            # Not the spec's loader: its cached bytecode outlives an edit within the same second.
            exec(compile(origin.read_bytes(), str(origin), "exec"), module.__dict__)
    # A plug-in that ends the process must not end the study without a word.
    except (Exception, SystemExit) as error:
        _forget(name)
        yield f"plugins: {_place(error, path)}: {type(error).__name__}: {error}"
    else:
        _LOADED[name] = state


def _forget(name: str) -> None:
    withdraw(name)
    for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[loaded]
    _LOADED.pop(name, None)


def _place(error: BaseException, plugin: Path) -> str:
    """The file and the line of the plug-in that failed, as text; the plug-in if none is known."""
    inside = {str(path) for path in files_of(plugin)}
    frames = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in inside]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if frames else str(plugin)
