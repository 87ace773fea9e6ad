"""Methods, groupings and scores in files of the user's own, which a study names in `plugins`.

A plug-in is one `.py` file, or a folder with an `__init__.py` where one file is not enough. It
registers what it adds by the same decorators as the library's own files. Its source is part of the
key of every arm that uses it, wherever the file lies: moving it reruns nothing, editing it does.
"""

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


def load_plugins(names: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Load the plug-ins and return where they lie; relative names start at `folder`.

    What has not changed since it was last loaded is left as it is; what has is loaded again.
    ConfigError lists every one that is missing, bears another's name, or fails, with its line.
    """
    paths = [(folder / Path(name).expanduser()).resolve() for name in names]
    problems = [problem for path in paths for problem in _wrong(path)]
    stems = [path.stem for path in paths]
    problems += [
        f"plugins: there are two of the name '{stem}', which is what arms know them by; rename one"
        for stem in sorted({stem for stem in stems if stems.count(stem) > 1})
    ]
    if not problems:
        problems = [problem for path in paths for problem in _load(path)]
    if problems:
        raise ConfigError(problems)
    return tuple(paths)


def files_of(plugin: Path) -> list[Path]:
    """The source files of a plug-in."""
    return [plugin] if plugin.is_file() else sorted(plugin.rglob("*.py"))


def _wrong(path: Path) -> Iterator[str]:
    if path.is_dir():
        if not (path / "__init__.py").is_file():
            yield f"plugins: the folder {path} has no __init__.py"
    elif not path.is_file():
        near = sorted(p.name for p in path.parent.glob("*.py"))
        yield f"plugins: there is no file {path}. {unknown('plug-in', path.name, near)}"
    elif path.suffix != ".py":
        yield f"plugins: {path} is no Python file (.py)"
    if not NAME.fullmatch(path.stem):
        yield f"plugins: {path.name}: {RULE}"


def _load(path: Path) -> Iterator[str]:
    name = _PREFIX + path.stem
    state = path, digest({str(p): file_digest(p) for p in files_of(path)})
    if _LOADED.get(name) == state:
        return
    withdraw(name)
    for loaded in [m for m in sys.modules if m == name or m.startswith(f"{name}.")]:
        del sys.modules[loaded]
    _LOADED.pop(name, None)
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
        del sys.modules[name]
        yield f"plugins: {path}{_line(error, path)}: {type(error).__name__}: {error}"
    else:
        _LOADED[name] = state


def _line(error: BaseException, path: Path) -> str:
    """The line of the plug-in that failed, as text; '' where none is known."""
    if isinstance(error, SyntaxError):
        return f", line {error.lineno}"
    inside = {str(p) for p in files_of(path)}
    lines = [f for f in traceback.extract_tb(error.__traceback__) if f.filename in inside]
    return f", line {lines[-1].lineno}" if lines else ""
