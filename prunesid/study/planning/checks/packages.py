"""Python packages: those of the project's extras, and those that one study needs besides."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import sys
import tomllib
from collections.abc import Callable, Iterable, Iterator

from packaging.requirements import Requirement
from packaging.version import Version

from prunesid.study.clone import in_clone
from prunesid.study.planning.checks.finding import MISSING, OK, Finding

# Where a package's module is not called like the package.
MODULES = {"pillow": "PIL", "scikit-learn": "sklearn", "pyyaml": "yaml"}
VIDEO = ("av",)
INSTALL = "`make .venv/.ready` installs what requirements.txt pins"

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


def required(extras: Iterable[str]) -> list[Requirement]:
    """The requirements of pyproject.toml with these extras, each once; own extras are followed."""
    document = tomllib.loads(in_clone("pyproject.toml").read_text(encoding="utf-8"))["project"]
    found: dict[str, Requirement] = {}

    def follow(names: Iterable[str]) -> None:
        for one in map(Requirement, names):
            if one.name != document["name"]:
                found.setdefault(one.name, one)
            for extra in sorted(one.extras) if one.name == document["name"] else ():
                follow(document["optional-dependencies"][extra])

    follow([*document["dependencies"], f"{document['name']}[{','.join(extras)}]"])
    return list(found.values())


def check_packages(
    extras: Iterable[str], also: Iterable[str] = (), version_of: Installed = installed
) -> Iterator[Finding]:
    """Every package that is missing or too old, a line each, and one line for all others."""
    good = 0
    for one in [*required(extras), *map(Requirement, also)]:
        version, what = version_of(one.name), f"package {one.name}"
        if version is None:
            detail = "not installed, or its module cannot be found"
            remedy = f"{INSTALL}; `.venv/bin/uv pip install {one.name}` this one"
            yield Finding(MISSING, what, detail, remedy)
        elif not one.specifier.contains(Version(version), prereleases=True):
            yield Finding(MISSING, what, f"{version}, where {one.specifier} is needed", INSTALL)
        else:
            good += 1
    python = f"Python {sys.version_info.major}.{sys.version_info.minor}"
    yield Finding(OK, "packages", f"{python}, {good} packages as required")
    broken = _broken_torchvision() if version_of("torchvision") is not None else ""
    if broken:
        remedy = "its CPU wheels do not fit a CPU build of torch: uninstall it, or install the "
        remedy += "release that goes with torch"
        detail = f"installed, but does not import ({broken})"
        yield Finding(MISSING, "package torchvision", detail, remedy)


def _broken_torchvision() -> str:
    """Why the installed torchvision takes transformers down with it, where it does."""
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        return next(iter(str(error).splitlines()), type(error).__name__)
    return ""
