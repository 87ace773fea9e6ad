"""Agreement of each method with its authors' code: what was compared, what differs and why.

The numbers are those that the tests measure on the golden vectors and record in `golden.json`; the
rest is what the methods' registrations say. `python -m prunesid.study.report.fidelity` writes the
tables into the documentation, between the marks that it finds there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple, dataclass
from functools import cache
from itertools import groupby
from pathlib import Path

from prunesid.core.crops import CHOICES
from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import VisionRecord
from prunesid.families import declared
from prunesid.methods import decoder, features
from prunesid.methods.registry import (
    DECODER,
    ENCODER,
    PACKAGES,
    UPSTREAM,
    Source,
    list_methods,
    place_of,
    resolve,
    source_of,
)
from prunesid.study.clone import in_clone
from prunesid.study.config.arm import text
from prunesid.study.report.method_facts import about

RECORDED = Path(__file__).with_name("golden.json")
PAGES = ("methods.md", "fidelity.md")
MARKS = "<!-- generated: {name} -->\n", "<!-- end -->"
PLACES = {ENCODER: "in the vision encoder", DECODER: "in the language model"}


@dataclass(frozen=True)
class Agreement:
    """Counts of a golden file's cases: all, equal ones, stable ones, and stable and equal ones.

    A case is stable where noise of the size of rounding leaves the official result as it is.
    """

    cases: int
    equal: int
    stable: int
    stable_equal: int

    def __add__(self, other: Agreement) -> Agreement:
        return Agreement(*map(sum, zip(astuple(self), astuple(other), strict=True)))

    def __str__(self) -> str:
        whole = f"{self.equal} of {self.cases} cases"
        if self.stable == self.cases:
            return whole
        return f"{whole}; {self.stable_equal} of the {self.stable} that rounding does not decide"


@cache
def agreement(golden: str) -> Agreement:
    """The last recorded agreement with a file of golden vectors; KeyError where there is none."""
    return Agreement(**json.loads(RECORDED.read_text(encoding="utf-8"))[golden])


def agreement_of(method: str) -> Agreement | None:
    """The agreement over all golden files of a method; None if it has none."""
    source = source_of(method)
    if source is None or not source.golden:
        return None
    first, *others = map(agreement, source.golden)
    return sum(others, first)


def code_of(source: Source) -> str:
    """Repository and commit of the authors' code, as text."""
    commit = f", commit {source.commit[:7]}" if source.commit else ""
    return f"{source.repository}{commit}"


def followed() -> list[tuple[str, Source]]:
    """The methods that have authors to follow, by place and name, with where they come from."""
    pairs = ((name, source_of(name)) for name in _methods())
    return [(name, source) for name, source in pairs if source is not None]


def _methods() -> Iterator[str]:
    return (name for place in PACKAGES for name in list_methods(place))


def agreement_table() -> str:
    """Method, paper, official code, how many cases are equal, and what differs by default."""
    rows = []
    for name, source in followed():
        measured = agreement_of(name)
        differs = ", ".join(f"`{param}`" for param in source.upstream) or "nothing"
        link = f"[{source.repository}](https://github.com/{source.repository})"
        code = f"{link} {source.commit[:7]}".strip()
        equal = "no vectors" if measured is None else str(measured)
        rows.append((f"`{name}`", f"{source.title}, {source.venue}", code, equal, differs))
    titles = ("method", "paper", "official code", "equal to it", "default differs in")
    return _markdown(titles, rows)


def upstream_table() -> str:
    """Every parameter whose default differs from the authors' code: both values and the reason."""
    titles = ("method", "parameter", "default", "upstream", "why the default differs")
    rows = []
    for name, source in followed():
        ours = resolve(name)
        for param, theirs in source.upstream.items():
            values = (name, param, text(ours[param]), text(theirs.value))
            rows.append((*(f"`{value}`" for value in values), theirs.reason))
    return _markdown(titles, rows)


@dataclass(frozen=True)
class Column:
    """A column of `run_table`: its title, and what it says of a method."""

    title: str
    cell: Callable[[str], str]


def _acts(method: str) -> str:
    return PLACES.get(place_of(method), "before the language model")


def _reads(method: str) -> str:
    needs = [*about(method).needs, *(["prompt"] if place_of(method) == DECODER else [])]
    return ", ".join(need.replace("_", " ") for need in needs) or "tokens"


def _budget(method: str) -> str:
    place = place_of(method)
    if place == ENCODER:
        return "tokens that leave the encoder, at the most"
    if place == DECODER:
        return "mean over layers of the tokens that enter one"
    if features.split_of(method) is not None:
        return "tokens of an image; crops share it by a rule of the method's own"
    return "tokens of an image; crops share it evenly"


def _order(method: str) -> str:
    resolved = resolve(method)
    if place_of(method) == DECODER:
        return (
            f"raster, {resolved['positions'] or decoder.DecoderShape(32, 576).numbering} positions"
        )
    if "order" in resolved:
        return str(resolved["order"])
    return _sent(method) if place_of(method) != ENCODER else "raster"


def _sent(method: str) -> str:
    """The order of a method's tokens, as it comes out of a run on random numbers."""
    side, images = 6, 1
    drawn = torch.Generator().manual_seed(0)

    def numbers(*shape: int) -> Tensor:
        return torch.rand(images, *shape, generator=drawn)

    tokens = side * side
    record = VisionRecord(
        numbers(tokens, 8), cls=numbers(8), cls_attention=numbers(2, tokens),
        keys=numbers(2, tokens, 4), projected=numbers(tokens, 8), relevance=numbers(tokens),
        last_attention=numbers(tokens), last_keys=numbers(tokens, 8),
        first_cls_attention=numbers(tokens), last_cls_attention=numbers(tokens), grid=(side, side),
    )  # fmt: skip
    index = features.compress(record, method, budget=tokens // 3).index[0].tolist()
    runs = [(patches, list(own)) for patches, own in groupby(index, lambda place: place >= 0)]
    return ", ".join(
        "CLS or merged" if not patches else "raster" if run == sorted(run) else "patches by rank"
        for patches, run in runs
    )


def _with_preset(method: str) -> str:
    source = source_of(method)
    if source is None:
        return "none"
    values = (f"{name}={text(each.value)}" for name, each in source.upstream.items())
    return ", ".join(values) or "as it is"


COLUMNS: Sequence[Column] = (
    Column("acts", _acts),
    Column("reads", _reads),
    Column("order", _order),
    Column("a budget is", _budget),
    Column(f"`preset: {UPSTREAM}`", _with_preset),
)


def run_table(columns: Sequence[Column] = COLUMNS) -> str:
    """Every method by what is run under its name."""
    rows = [(f"`{name}`", *(column.cell(name) for column in columns)) for name in _methods()]
    return _markdown(("method", *(column.title for column in columns)), rows)


def crops_table() -> str:
    """The methods whose authors have code for an image in crops, with its options."""
    found = {name: features.authors_crops(name) for name in features.list_feature_methods()}
    rows = [
        (f"`{name}`", *(f"`{getattr(crops, option)}`" for option in CHOICES))
        for name, crops in found.items()
        if crops is not None
    ]
    return _markdown(("method", *(f"`{option}`" for option in CHOICES)), rows)


def families_table() -> str:
    """The default preparation of images and questions, by model family."""
    found = map(declared.family_of, declared.names())
    rows = [(f"`{family.name}`", family.padding, family.prompt) for family in found]
    return _markdown(("family", "images", "prompt"), rows)


def run_texts() -> str:
    """Each method's own description, beside its source."""
    parts = []
    for name, source in followed():
        known = about(name)
        measured = agreement_of(name)
        equal = "No vectors." if measured is None else f"Equal to it in {measured}."
        facts = f"{source.title}, {source.venue}. Code: {code_of(source)}. {equal}"
        parts.append(f"### {name}\n\n{facts}\n\n{known.summary}\n\n{known.remarks}".strip())
    return "\n\n".join(parts) + "\n"


BLOCKS: dict[str, Callable[[], str]] = {
    "agreement": agreement_table,
    "upstream": upstream_table,
    "run": run_table,
    "crops": crops_table,
    "families": families_table,
    "texts": run_texts,
}


def filled(page: str) -> str:
    """A page with the text between its marks as it should be; ValueError on unknown marks."""

    def block(match: re.Match[str]) -> str:
        if match[1] not in BLOCKS:
            raise ValueError(f"no table {match[1]!r}. Available: {', '.join(BLOCKS)}")
        return f"{MARKS[0].format(name=match[1])}\n{BLOCKS[match[1]]()}\n{MARKS[1]}"

    return re.sub(r"<!-- generated: (\w+) -->\n.*?<!-- end -->", block, page, flags=re.DOTALL)


def write_pages() -> None:
    """Bring the tables of `PAGES` up to date."""
    for name in PAGES:
        path = in_clone("docs", name)
        page = path.read_text(encoding="utf-8")
        path.write_text(filled(page), encoding="utf-8", newline="\n")


def _markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines) + "\n"


if __name__ == "__main__":
    write_pages()
