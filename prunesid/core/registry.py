"""Registries whose entries register themselves; a new entry is one new file or plug-in."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import pkgutil
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import cache
from importlib.metadata import entry_points
from itertools import accumulate
from types import FrameType
from typing import Any, Generic, TypeVar
from weakref import WeakSet

from prunesid.core.names import check_name

Entry = TypeVar("Entry")

_REGISTRIES: WeakSet[Registry[Any]] = WeakSet()
_OWNER: ContextVar[str | None] = ContextVar("owner", default=None)
# The most characters that a message shows of a value and of a list of choices.
VALUE, CHOICES = 100, 240


@contextmanager
def owned_by(module: str | None) -> Iterator[None]:
    """Assign all that the block registers to `module`, and withdraw it if the block raises.

    Entries of the library's own modules stay the library's, even if the block is the first to
    import them.
    """
    token = _OWNER.set(module)
    try:
        yield
    except BaseException:
        if module is not None:
            withdraw(module)
        raise
    finally:
        _OWNER.reset(token)


def _owner() -> str | None:
    """The module that owns an entry registered now; None if the entry is the library's own."""
    # Find the module whose import is running, whatever triggered that import.
    frame: FrameType | None = sys._getframe()
    while frame is not None and frame.f_code.co_name != "<module>":
        frame = frame.f_back
    running = "" if frame is None else str(frame.f_globals.get("__name__"))
    return None if running.partition(".")[0] == __package__.partition(".")[0] else _OWNER.get()


def withdraw(module: str) -> None:
    """Forget everything that belongs to `module`."""
    for registry in _REGISTRIES:
        registry.withdraw(module)


def unknown(kind: str, name: object, choices: Iterable[str]) -> str:
    """The message for a name that is not one of the choices; it suggests the nearest one."""
    known = sorted(choices)
    wanted = str(name)[:VALUE]
    near = difflib.get_close_matches(wanted, known, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    # If there are too many choices, show those most like the name.
    alike = difflib.get_close_matches(wanted, known, n=max(1, len(known)), cutoff=0.0)
    count = sum(end <= CHOICES for end in accumulate(len(each) + 2 for each in alike))
    named = sorted(alike[: max(1, count)])
    if len(known) > len(named):
        named.append(f"... and {len(known) - len(named)} more")
    return f"Unknown {kind} {shown(name)}.{hint} Available: {', '.join(named) or 'none'}."


def shown(value: object) -> str:
    """A value as a message shows it."""
    whole = repr(value)
    return whole if len(whole) <= VALUE else f"{whole[:VALUE]} ..."


class Registry(Generic[Entry]):
    """The entries of one kind, from every module of `packages` and the entry points of `group`.

    The modules are imported on first use, so a module may import the registry that it registers in.
    """

    def __init__(self, kind: str, *packages: str, group: str, reserved: Sequence[str] = ()) -> None:
        self.kind = kind
        self._packages = packages
        self._group = group
        self._reserved = reserved
        self._entries: dict[str, Entry] = {}
        self._owners: dict[str, str] = {}
        self._discovered = False
        _REGISTRIES.add(self)

    def register(self, name: str) -> Callable[[Entry], Entry]:
        """A decorator that registers an entry under `name`.

        ValueError if the name is taken, reserved or not valid.
        """
        check_name(self.kind, name)
        if name in self._reserved:
            raise ValueError(f"No {self.kind} can be named {name!r}, which means something else.")

        def add(entry: Entry) -> Entry:
            owner = _owner()
            if owner is not None:
                # A plug-in must not take the name of an entry that has not been imported yet.
                self._discover()
            if name in self._entries:
                file = getattr(sys.modules.get(self.modules_of(name)[-1]), "__file__", None)
                home = f", in {file}" if file else ""
                raise ValueError(f"There already is a {self.kind} named {name!r}{home}.")
            self._entries[name] = entry
            if owner is not None:
                self._owners[name] = owner
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

    def modules_of(self, name: str) -> list[str]:
        """The modules of an entry: its function's, and that of the plug-in that it came with."""
        found = [_module(self[name]), self._owners.get(name)]
        return list(dict.fromkeys(module for module in found if module is not None))

    def withdraw(self, module: str) -> None:
        """Forget the entries that belong to `module`."""
        for name in [name for name, owner in self._owners.items() if owner == module]:
            del self._entries[name], self._owners[name]

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        with owned_by(None):
            for name in self._packages:
                package = importlib.import_module(name)
                for module in pkgutil.iter_modules(package.__path__, prefix=f"{name}."):
                    importlib.import_module(module.name)
            for plugin in entry_points(group=self._group):
                try:
                    plugin.load()
                except Exception as error:  # a broken plug-in must not take the others down with it
                    warnings.warn(f"{self.kind} plug-in {plugin.name!r}: {error}", stacklevel=2)


def listed(package: str, group: str) -> list[str]:
    """The names in the registry of `package`, without importing its modules, which may take long.

    Only for registries in which a module has the name of its entry.
    """
    spec = importlib.util.find_spec(package)
    folders = (spec.submodule_search_locations if spec else None) or ()
    names = {module.name for module in pkgutil.iter_modules(folders)}
    names |= _plugin_names(group)
    for registry in _REGISTRIES:
        if registry._group == group:
            names |= registry._entries.keys()
    return sorted(names)


@cache
def _plugin_names(group: str) -> frozenset[str]:
    # Cached, because it reads the metadata of every installed package.
    return frozenset(plugin.name for plugin in entry_points(group=group))


def check_function(
    whose: str, run: Callable[..., Any], *first: str, named: Sequence[str] = ()
) -> None:
    """ValueError unless a function takes `first` and, by name, all of `named`.

    Also ValueError for a generator or coroutine function.
    """
    try:
        inspect.signature(run).bind(*first, **dict.fromkeys(named))
    except TypeError as error:
        parameters = " and, by name, its parameters" if named else ""
        raise ValueError(
            f"the function of {whose} does not take ({', '.join(first)}){parameters}: {error}"
        ) from error
    kinds = (inspect.isgeneratorfunction, inspect.iscoroutinefunction, inspect.isasyncgenfunction)
    if any(is_one(run) for is_one in kinds):
        raise ValueError(f"the function of {whose} is a generator or coroutine; it has to return")


def _module(entry: object) -> str:
    """Name of the module that defines an entry's function."""
    return getattr(entry, "run", entry).__module__
