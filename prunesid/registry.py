"""Names to things that register themselves: adding one is adding one file (or one plug-in)."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
import warnings
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Generic, TypeVar

Entry = TypeVar("Entry")


def unknown(kind: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not one of the choices, with the nearest one first."""
    known = sorted(choices)
    near = difflib.get_close_matches(str(name), known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    return f"Unknown {kind} {name!r}.{hint} Available: {', '.join(known) or 'none'}."


class Registry(Generic[Entry]):
    """The entries of one kind: every module of `package`, and entry points of the same name.

    The modules are imported on first use, so that a module may import the registry it is part of.
    """

    def __init__(self, kind: str, package: str) -> None:
        self.kind = kind
        self._package = package
        self._entries: dict[str, Entry] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that files what it decorates under `name`; a name taken is a ValueError."""

        def add(entry: Entry) -> Entry:
            if name in self._entries:
                raise ValueError(f"There already is a {self.kind} named {name!r}.")
            self._entries[name] = entry
            return entry

        return add

    def names(self) -> list[str]:
        """All names, sorted."""
        self._discover()
        return sorted(self._entries)

    def __getitem__(self, name: str) -> Entry:
        self._discover()
        if name not in self._entries:
            raise ValueError(unknown(self.kind, name, self._entries))
        return self._entries[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in pkgutil.iter_modules(package.__path__, prefix=f"{self._package}."):
            importlib.import_module(module.name)
        for plugin in entry_points(group=self._package):
            try:
                plugin.load()
            except Exception as error:  # a broken plug-in must not take the others down with it
                warnings.warn(f"{self.kind} plug-in {plugin.name!r}: {error}", stacklevel=2)
