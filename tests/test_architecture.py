"""Nothing imports what stands above it (docs/architecture.md); no imports in circles."""

from __future__ import annotations

from pathlib import Path

import prunesid
from prunesid.core.imports import imported

LIBRARY = Path(prunesid.__file__).parent
# From the bottom up; packages in one line may not import each other.
LAYERS = (
    ("core",),
    ("methods",),
    ("images",),
    ("families",),
    ("generate",),
    ("lmms",),
    ("pocket",),
    ("study.files",),
    ("study.config",),
    ("study.provenance",),
    ("study.stages",),
    ("study.analysis",),
    ("study.report",),
    ("study.explorer",),
    ("study.tracking",),
    ("study.planning",),
    ("study.run",),
    ("__main__",),
)


def imports() -> dict[str, set[str]]:
    """{module: modules of the library that it imports}, those for type checkers alone left out."""
    found = {}
    for path in sorted(LIBRARY.rglob("*.py")):
        parts = path.relative_to(LIBRARY.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = set(imported(name, path)) - {name}
    return {name: {each for each in own if each in found} for name, own in found.items()}


def layer(module: str) -> int | None:
    for number, packages in enumerate(LAYERS):
        for package in packages:
            whole = f"prunesid.{package}"
            if module == whole or module.startswith(f"{whole}."):
                return number
    return None


def package(module: str) -> str:
    return next(p for own in LAYERS for p in own if f"{module}.".startswith(f"prunesid.{p}."))


def test_imports_point_down():
    wrong = []
    for module, own in imports().items():
        here = layer(module)
        for other in sorted(own):
            there = layer(other)
            if here is None or there is None:
                continue
            if there > here or (there == here and package(module) != package(other)):
                wrong.append(f"{module} -> {other}")
    assert not wrong, "\n".join(wrong)


def test_no_module_imports_itself_through_others():
    graph = imports()
    done: set[str] = set()

    def walk(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path[path.index(module) :], module))
        if module in done:
            return
        for other in sorted(graph[module]):
            walk(other, (*path, module))
        done.add(module)

    for module in graph:
        walk(module, ())
