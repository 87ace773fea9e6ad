"""Facts of a method before it has run, from its registration and its file."""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields

from prunesid.core.needs import Needs
from prunesid.core.parameters import Param
from prunesid.methods.registry import METHODS, Source, place_of, requirements, resolve

# A source in brackets: 'Alvar et al., CVPR 2025'.
SOURCE = re.compile(r"\(([^()]*\b(?:19|20)\d\d)\)")


@dataclass(frozen=True)
class About:
    """A method's name, where it acts, and what it reads and takes.

    place             ENCODER, FEATURES (what the encoder leaves) or DECODER (the language model)
    summary, remarks  the first paragraph of its file's description, and the others
    meanings          what its function says of the parameters
    source            paper and year as the summary names them, '' where it names none
    origin            the paper and the authors' code as the registration has them, or None
    module            where its code is
    params            its parameters by name
    needs             what it reads beside the tokens
    """

    name: str
    place: str
    summary: str
    remarks: str
    meanings: str
    source: str
    origin: Source | None
    module: str
    params: Mapping[str, Param]
    needs: tuple[str, ...]

    @property
    def texts(self) -> list[tuple[str, str]]:
        """The longer descriptions that there are, each after its heading."""
        found = [("What to know", self.remarks), ("What its parameters mean", self.meanings)]
        return [(heading, words) for heading, words in found if words]


def about(method: str, **params: object) -> About:
    """Of a method of any kind; its needs are those with these parameters.

    A module that is named otherwise than the method (a plug-in with several) is described by the
    method's function. ValueError on unknown names and values.
    """
    resolve(method, **params)
    entry = METHODS[method]
    module = METHODS.modules_of(method)[0]
    meanings = inspect.getdoc(entry.run) or ""
    own = importlib.import_module(module).__doc__ if method in module.split(".")[-2:] else None
    summary, _, remarks = inspect.cleandoc(own or meanings).partition("\n\n")
    summary = " ".join(summary.split())
    source = SOURCE.search(summary)
    return About(
        name=method,
        place=place_of(method),
        summary=summary,
        remarks=remarks.strip(),
        meanings=meanings if own else "",
        source=source[1] if source else "",
        origin=entry.source,
        module=module,
        params=entry.params,
        needs=_needs(requirements(method, **params)),
    )


def _needs(needs: Needs) -> tuple[str, ...]:
    named = [
        each.name for each in fields(needs) if each.name != "layers" and getattr(needs, each.name)
    ]
    return (*named, *(f"block {n}" for n in sorted(needs.layers)))
