"""The files that a module's results depend on, read from import statements without executing them.

An import inside a function counts; one for type checkers alone does not. A package that merely
contains an imported module does not count. If a package re-exports a name, the module that defines
the name counts instead.
"""

from __future__ import annotations

import ast
import importlib.util
import os
import sys
from collections.abc import Collection, Iterable, Iterator
from functools import cache, lru_cache
from pathlib import Path

from prunesid.core.files import digest, file_digest

# A package that counts as a whole may hold modules, YAML and files that YAML includes, templates.
_SUFFIXES = (".py", ".yaml", ".html", ".css", "")


def closure(roots: Iterable[str], apart: Collection[str] = ()) -> dict[str, Path]:
    """The files, by module name, of `roots` and of all that they import from the same packages.

    If a root is a package, every file in it counts. Modules in `apart` count only as roots; a
    package among them stands for itself, without the modules below it. ValueError if a root has no
    file.
    """
    roots = tuple(dict.fromkeys(roots))
    within = frozenset(root.partition(".")[0] for root in roots)
    own = within <= {__package__.partition(".")[0]}
    return dict((_own_closure if own else _closure)(roots, within, frozenset(apart)))


def _closure(
    roots: tuple[str, ...], within: frozenset[str], apart: frozenset[str]
) -> dict[str, Path]:
    found: dict[str, Path] = {}
    waiting = []
    for root in roots:
        path = _locate(root)
        if path is None:
            raise ValueError(f"module {root} has no source file")
        waiting.append(root)
        if path.name == "__init__.py" and root not in apart:
            for file in _below(path.parent):
                name = ".".join((root, *file.relative_to(path.parent).with_suffix("").parts))
                if file.suffix == ".py":
                    waiting.append(name.removesuffix(".__init__"))
                else:
                    found[f"{name}{file.suffix}"] = file
    while waiting:
        module = waiting.pop()
        path = _locate(module)
        if module in found or path is None:
            continue
        found[module] = path
        waiting += [
            name
            for name in imported(module, path)
            if name.partition(".")[0] in within and name not in apart
        ]
    return dict(sorted(found.items()))


def imported(module: str, path: Path) -> tuple[str, ...]:
    """The modules that the source of `module` imports, of any package, sorted."""
    state = path.stat()
    return _imported(module, path, state.st_mtime_ns, state.st_size)


def files_digest(files: dict[str, Path]) -> str:
    """16 hex digits that depend on the names and contents of `files`, not on their folders."""
    return digest({name: _content(path) for name, path in files.items()})


def _content(path: Path) -> str:
    state = path.stat()
    return _file_digest(path, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=4096)
def _file_digest(path: Path, changed: int, size: int) -> str:
    return file_digest(path)


@lru_cache(maxsize=4096)
def _imported(module: str, path: Path, changed: int, size: int) -> tuple[str, ...]:
    names = set()
    for base, name in _bindings(module, path):
        names.add(base if name is None else _source(base, name))
    return tuple(sorted(names))


def _bindings(module: str, path: Path, checking: bool = False) -> Iterator[tuple[str, str | None]]:
    """(module, name) of each import in a file; the name is None if a whole module is imported.

    checking  whether the imports for type checkers alone are among them
    """
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    state = path.stat()
    for node in _imports(path, checking, state.st_mtime_ns, state.st_size):
        if isinstance(node, ast.Import):
            yield from ((alias.name, None) for alias in node.names)
        else:
            above = package.split(".")[: len(package.split(".")) + 1 - node.level]
            base = ".".join([*(above if node.level else ()), *filter(None, [node.module])])
            yield from ((base, alias.name) for alias in node.names)


@lru_cache(maxsize=4096)
def _imports(
    path: Path, checking: bool, changed: int, size: int
) -> tuple[ast.Import | ast.ImportFrom, ...]:
    statements = _statements(ast.parse(path.read_bytes()), checking)
    return tuple(each for each in statements if isinstance(each, (ast.Import, ast.ImportFrom)))


def _statements(node: ast.AST, checking: bool) -> Iterator[ast.AST]:
    """All statements below `node`; those for type checkers alone only if `checking`."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.expr):
            continue
        if isinstance(child, ast.If) and not checking and _for_checkers(child.test):
            for other in child.orelse:
                yield other
                yield from _statements(other, checking)
        else:
            yield child
            yield from _statements(child, checking)


def _for_checkers(test: ast.expr) -> bool:
    return ast.unparse(test).endswith("TYPE_CHECKING")


def _source(base: str, name: str) -> str:
    """The module needed by `from base import name`: a submodule, or the one that defines `name`."""
    if _locate(f"{base}.{name}") is not None:
        return f"{base}.{name}"
    path = _locate(base)
    if path is not None and path.name == "__init__.py":
        # A package that imports its names on first use declares them for type checkers.
        for origin, handed_on in _bindings(base, path, checking=True):
            if handed_on == name and origin != base:
                return _source(origin, name)
    return base


def _below(folder: Path) -> Iterator[Path]:
    for file in sorted(folder.rglob("*")):
        inside = file.relative_to(folder).parts
        apart = any(part.startswith(".") or part == "__pycache__" for part in inside)
        if file.is_file() and file.suffix in _SUFFIXES and not apart:
            yield file


def _locate(module: str) -> Path | None:
    """The source file of a module, which need not be imported; None if it has none."""
    top, *rest = module.split(".")
    origin = _origin(top)
    if origin is None or not rest:
        return origin
    if origin.name != "__init__.py":
        return None
    return (
        _under(origin.parent, tuple(rest))
        if top == __package__.partition(".")[0]
        else _look(origin.parent, rest)
    )


def _origin(top: str) -> Path | None:
    loaded = getattr(sys.modules.get(top), "__file__", None)
    if loaded is None and top not in sys.modules:
        spec = importlib.util.find_spec(top)
        loaded = spec.origin if spec is not None and spec.has_location else None
    return None if loaded is None or not os.fspath(loaded).endswith(".py") else Path(loaded)


def _look(folder: Path, parts: Iterable[str]) -> Path | None:
    base = folder.joinpath(*parts)
    for path in (base / "__init__.py", base.with_name(f"{base.name}.py")):
        if path.is_file():
            return path
    return None


# The library's own files do not change while it runs; those of plug-ins may.
_under = cache(_look)
_own_closure = cache(_closure)
