"""Python packages: those of the project's extras, and those that one study needs beside them."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.version import Version

from prunesid.study.planning.checks.finding import MISSING, OK, Finding

PROJECT = Path(__file__).resolve().parents[4] / "pyproject.toml"
# Where a package's module is not called like the package.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
VIDEO = ("av",)

Installed = Callable[[str], str | None]
"""Version of an installed package by name, None for one that is not there or cannot be imported."""


def installed(name: str) -> str | None:
    """The version of a package whose module can be found."""
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    module = MODULES.get(name.lower(), name.lower().replace("-", "_"))
    return version if importlib.util.find_spec(module) is not None else None


def required(extras: Iterable[str], project: Path = PROJECT) -> list[Requirement]:
    """The requirements of pyproject.toml with these extras, each once; own extras are followed."""
    document = tomllib.loads(project.read_text(encoding="utf-8"))["project"]
    optional, open_extras = document["optional-dependencies"], list(extras)
    found: dict[str, Requirement] = {}
    names = [*document["dependencies"]]
    seen: set[str] = set()
    while open_extras:
        extra = open_extras.pop()
        if extra not in seen:
            seen.add(extra)
            names += optional[extra]
            open_extras += [
                e for n in optional[extra] if Requirement(n).name == document["name"]
                for e in Requirement(n).extras
            ]  # fmt: skip
    for name in names:
        one = Requirement(name)
        if one.name != document["name"]:
            found.setdefault(one.name, one)
    return list(found.values())


def check_packages(
    extras: Iterable[str], also: Iterable[str] = (), version_of: Installed = installed
) -> Iterator[Finding]:
    """Every package that is missing or too old, a line each, and one line for all others."""
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    good = 0
    for one in [*required(extras), *map(Requirement, also)]:
        version = version_of(one.name)
        if version is None:
            yield Finding(
                MISSING, f"package {one.name}", "not installed, or its module cannot be found",
                "`make .venv/.ready` installs what requirements.txt pins; "
                f"`.venv/bin/uv pip install {one.name}` this one",
            )  # fmt: skip
        elif not one.specifier.contains(Version(version), prereleases=True):
            yield Finding(
                MISSING, f"package {one.name}", f"{version}, where {one.specifier} is needed",
                "`make .venv/.ready` installs what requirements.txt pins",
            )  # fmt: skip
        else:
            good += 1
    yield Finding(OK, "packages", f"{python}, {good} packages as required")
    broken = _broken_torchvision(version_of)
    if broken:
        yield Finding(
            MISSING, "package torchvision", f"installed, but does not import ({broken})",
            "its CPU wheels do not fit a CPU build of torch: uninstall it, or install the "
            "release that goes with torch",
        )  # fmt: skip


def _broken_torchvision(version_of: Installed) -> str:
    """Why torchvision takes transformers down with it, where it is installed and does."""
    if version_of("torchvision") is None:
        return ""
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""
