"""An ablation: one YAML that says what varies, and across what; arms, table and figure follow.

The rows of an ablation are the settings under study (`vary`), its columns what each is studied
under (`across`). Both are either a mapping of axes to values, all combinations of which are taken,
or a list of settings. An axis is `method`, `budget`, `dynamic`, a choice for images in crops
and for clips (`prunesid.core.crops`) or any parameter of a method. The cell of a row and a column
is one arm, or one per seed where chance plays a part; `except` names cells that are left out.
"""

import itertools
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from prunesid.core.registry import listed, unknown
from prunesid.study.config.arm import ALL_TOKENS, VANILLA, WHOLE, Arm, once, seeds_of, text
from prunesid.study.config.documents import (
    ARMS,
    ConfigError,
    Document,
    check,
    collecting,
    read_document,
    read_schema,
)
from prunesid.study.config.layers import AXIS, with_blocks
from prunesid.study.config.printed import printed

RESERVED_AXES = frozenset({"row", "column"})
FIGURE_KINDS = "prunesid.study.report.figures"
FIGURE = "figure"
# The kind of figure that needs a numeric axis.
LAYERS = "layers"
# The label of a row that leaves the default method unchanged.
TITLE = "PruneSID"


@dataclass(frozen=True)
class Setting:
    """Values of some axes; `key` names it in files ('grouping=psca'), `label` is what is shown."""

    values: tuple[tuple[str, Any], ...]
    label: str

    @property
    def key(self) -> str:
        return ",".join(f"{axis}={text(value)}" for axis, value in self.values)

    def as_dict(self) -> dict[str, Any]:
        return dict(self.values)


@dataclass(frozen=True)
class Cell:
    """A row under a column, and the arms that measure it (one per seed)."""

    row: Setting
    column: Setting
    arms: tuple[Arm, ...]


@dataclass(frozen=True)
class TableOptions:
    """How the table looks.

    paper_table  number of the paper's table to show next to ours
    average      'overall' (one column, as in table 5) or 'column' (one per column, as in table 6)
    """

    paper_table: int | None
    average: str


@dataclass(frozen=True)
class FigureOptions:
    """`x` and `hue` name axes, or 'row' or 'column' for a whole setting.

    kind    file in prunesid/study/report/figures, or plug-in, that draws the figure
    also    further kinds, drawn next to it
    facets  axes that neither x nor hue shows, for whose values the panels are repeated
    """

    x: str
    hue: str
    scale: str
    kind: str
    also: tuple[str, ...] = ()
    facets: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, str]:
        """Every picture's file name, without its suffix, and the kind that draws it."""
        return {FIGURE: self.kind} | {kind: kind for kind in self.also}


@dataclass(frozen=True)
class LatencyOptions:
    """How the arms are clocked (`prunesid.generate.latency`).

    benchmark  whose questions; None: the first of the ablation's
    questions  how many, each on an image of its own
    batches    numbers of requests at once, the first is one: it gives the latency, all of them give
               the throughput
    rounds     how often the questions are asked
    """

    benchmark: str | None
    questions: int
    batches: tuple[int, ...]
    rounds: int


@dataclass(frozen=True)
class Ablation:
    name: str
    title: str
    description: str
    base: tuple[tuple[str, Any], ...]
    rows: tuple[Setting, ...]
    columns: tuple[Setting, ...]
    reference: Setting
    benchmarks: tuple[str, ...] | None
    seeds: int
    cells: tuple[Cell, ...]
    table: TableOptions
    figure: FigureOptions
    latency: LatencyOptions | None = None
    place: str | None = None

    @property
    def in_paper(self) -> str | None:
        """Where the paper has it: its `place`, else the table whose numbers stand beside it."""
        table = self.table.paper_table
        return self.place or (None if table is None else f"table {table}")

    @property
    def clocked(self) -> str | None:
        """The benchmark on which the arms are clocked, None where they are not."""
        if self.latency is None or not self.benchmarks:
            return None
        return self.latency.benchmark or self.benchmarks[0]

    @property
    def clocked_arms(self) -> tuple[Arm, ...]:
        """The clocked arms: all tokens, and one of each cell, since seeds take the same time."""
        arms = (VANILLA, *(cell.arms[0] for cell in self.cells))
        return tuple({arm.name: arm for arm in arms}.values())

    @property
    def axes(self) -> tuple[str, ...]:
        """All axes in the order in which the rows, then the columns, first name them."""
        return _axes((*self.rows, *self.columns))

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods of the rows, each once; none unless every row names one and they differ."""
        named = [row.as_dict().get("method") for row in self.rows]
        if None in named or len(set(named)) < 2:
            return ()
        return tuple(dict.fromkeys(str(name) for name in named if name != ALL_TOKENS))

    @property
    def labels(self) -> dict[str, str]:
        """{arm: its label}: its row, its column and, if there are several seeds, the seed.

        An arm of several cells has the label of the first.
        """
        found = {ALL_TOKENS: WHOLE}
        for cell in self.cells:
            place = [cell.row.label, *([cell.column.label] if cell.column.values else [])]
            for arm in cell.arms:
                seed = [f"seed {arm.seed}"] if len(cell.arms) > 1 else []
                label = ", ".join((*place, *seed))
                if arm.name not in found:
                    # Labels that contain commas may become equal once they are joined.
                    alike = sum(known.startswith(label) for known in found.values())
                    found[arm.name] = f"{label} ({alike + 1})" if label in found.values() else label
        return found

    def columns_of(self, row: Setting) -> tuple[Setting, ...]:
        """The columns under which a row is run."""
        return tuple(cell.column for cell in self.cells if cell.row == row)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm of the ablation once, the all-token arm first."""
        return once(itertools.chain([VANILLA], *(cell.arms for cell in self.cells)))


def load_ablation(
    path: Path,
    seeds: int = 3,
    depth: int | None = None,
    overrides: Document | None = None,
) -> Ablation:
    """The ablation in a YAML file.

    seeds      the study's number, which the file may override
    depth      number of blocks of the model's vision tower, for the axis `layer`
    overrides  fields that take the place of the file's

    ConfigError lists every problem, with file and line: unknown fields, methods, parameters and
    values with the nearest valid name, more groups than tokens, a layer that the tower lacks, a
    reference that is no row, a figure that leaves an axis out, more arms than can be planned.
    """
    schema = read_schema("ablation")
    file = read_document(path)
    own = given = check(file, schema)
    document = file if overrides is None else overrides.over(file)
    if overrides is not None:
        given = check(document, schema)
    # If a study leaves values out of `vary`, the file still has their labels and exceptions.
    problems = [
        *_strange_labels(given["labels"], own, given),
        *_strange_exceptions(given["except"], own, given),
    ]
    with collecting(problems):
        found = parse_ablation(path.stem, given, seeds, depth)
    if problems:
        raise ConfigError(document.at(problem, about="vary") for problem in problems)
    return found


def ablation_document(path: Path, overrides: Document | None = None) -> Document:
    """The document of an ablation, with a study's fields in the place of the file's."""
    file = read_document(path)
    return file if overrides is None else overrides.over(file)


def parse_ablation(
    name: str, document: Mapping[str, Any], seeds: int = 3, depth: int | None = None
) -> Ablation:
    """The ablation of a document that fits the schema and has its defaults; errors as above."""
    count, base = document["seeds"] or seeds, document["base"]
    size = _count(document["vary"]) * _count(document["across"])
    too_many = (
        f"vary: {size:,} cells (rows times columns) with {count:,} seeds are up to "
        f"{size * count:,} arms; an ablation has at most {ARMS:,}"
    )
    # Refused before any setting is built.
    if size > ARMS:
        raise ConfigError([too_many])
    document = with_blocks(document, depth)
    labels, left_out = document["labels"], document["except"]
    plain = str(base.get("method", TITLE))
    rows = _settings(document["vary"], labels, plain)
    columns = _settings(document["across"], labels, "")
    problems = [*_clashes(base, rows, columns)]
    cells: list[Cell] = []
    total = 0
    for row, column in itertools.product(rows, columns):
        setting = {**base, **column.as_dict(), **row.as_dict()}
        if any(_matches(setting, rule) for rule in left_out):
            continue
        with collecting(problems):
            cells.append(Cell(row, column, seeds_of(setting, min(count, ARMS + 1))))
            total += len(cells[-1].arms)
        if total > ARMS:
            raise ConfigError([too_many])
    if not problems:
        problems += [*_twins("vary", rows, cells), *_twins("across", columns, cells)]
    with collecting(problems):
        once(itertools.chain(*(cell.arms for cell in cells)))
    number = document["table"]["paper_table"]
    if number is not None and str(number) not in printed("table"):
        problems.append(
            f"table.paper_table: {unknown('table of the paper', number, printed('table'))}"
        )
    with collecting(problems):
        reference = _reference(document["reference"], rows)
    if left_out:
        run = {(cell.row, cell.column) for cell in cells}
        if not problems and any((reference, column) not in run for column in columns):
            problems.append("except: the reference is compared under every column; leave it in")
        # A row that is left out of every column, for example by a study with fewer, is dropped.
        rows = tuple(row for row in rows if any((row, column) in run for column in columns))
    with collecting(problems):
        figure = _figure(document["figure"], rows, columns)
    if not problems:
        problems += _off_axis(figure, rows, columns, reference)
    if problems:
        raise ConfigError(problems)
    return Ablation(
        name=name,
        title=document["title"],
        description=document["description"].strip(),
        base=tuple(base.items()),
        rows=rows,
        columns=columns,
        reference=reference,
        benchmarks=tuple(document["benchmarks"]) if document["benchmarks"] else None,
        seeds=count,
        cells=tuple(cells),
        table=TableOptions(**document["table"]),
        figure=figure,
        latency=_latency(document["latency"]),
        place=document["place"],
    )


def _latency(options: Mapping[str, Any] | None) -> LatencyOptions | None:
    if options is None:
        return None
    chosen = LatencyOptions(**{**options, "batches": tuple(sorted(options["batches"]))})
    if chosen.batches[0] != 1:
        raise ConfigError(["latency.batches: 1 is missing; the latency is that of one request"])
    most = chosen.batches[-1]
    if most > chosen.questions:
        raise ConfigError(
            [f"latency.batches: {most} at once of {chosen.questions} questions (latency.questions)"]
        )
    return chosen


def _count(varied: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]]) -> int:
    """The number of settings that `varied` describes."""
    return prod(map(len, varied.values())) if isinstance(varied, Mapping) else len(varied)


def _settings(
    varied: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]],
    labels: Mapping[str, Any],
    plain: str,
) -> tuple[Setting, ...]:
    """The settings of rows or columns; `plain` is the label of one that changes nothing."""
    settings: Iterable[Mapping[str, Any]] = ()
    if isinstance(varied, Mapping):
        combinations = itertools.product(*varied.values())
        settings = (dict(zip(varied, values, strict=True)) for values in combinations)
    else:
        settings = varied
    return tuple(_setting(values, labels, plain) for values in settings)


def _setting(given: Mapping[str, Any], labels: Mapping[str, Any], default: str) -> Setting:
    values = {axis: value for axis, value in given.items() if axis != "label"}
    parts = []
    for axis, value in values.items():
        known = {text(k): v for k, v in labels.get(axis, {}).items()}
        plain = text(value) if isinstance(value, str) else f"{axis.replace('_', ' ')} {text(value)}"
        parts.append(known.get(text(value), f"{value} tokens" if axis == "budget" else plain))
    return Setting(tuple(values.items()), given.get("label") or ", ".join(parts) or default)


def _matches(setting: Mapping[str, Any], rule: Mapping[str, Sequence[Any]]) -> bool:
    """True for a setting with one of the rule's values on each of its axes."""
    return all(
        axis in setting and text(setting[axis]) in map(text, values)
        for axis, values in rule.items()
    )


def _clashes(
    base: Iterable[str], rows: Iterable[Setting], columns: Iterable[Setting]
) -> Iterator[str]:
    """Problems: axes that stand in two places, or are none, and settings that occur twice."""
    row_axes, column_axes = set(_axes(rows)), set(_axes(columns))
    axes = row_axes | column_axes
    for axis in sorted(row_axes & column_axes):
        yield f"the axis '{axis}' stands in both vary and across; keep it in one of them"
    for axis in sorted({*base} & axes):
        yield f"'{axis}' stands in base, where it is fixed, and varies as an axis"
    if "seed" in axes:
        yield "'seed' is no axis: `seeds` sets how many seeds a random arm runs with"
    for axis in sorted(RESERVED_AXES & axes):
        yield f"'{axis}' cannot name an axis; it stands for a whole setting in `figure`"
    for part, settings in (("vary", rows), ("across", columns)):
        keys = [setting.key for setting in settings]
        for key in sorted({key for key in keys if keys.count(key) > 1}):
            yield f"{part}: '{key}' occurs twice"
        # Compared as they look: an accent may be a separate character, and blanks have many forms.
        labels = [unicodedata.normalize("NFC", " ".join(s.label.split())) for s in settings]
        for label in sorted({label for label in labels if labels.count(label) > 1}):
            yield f"{part}: two are called '{label}'; give them a `label` each"


def _twins(part: str, settings: Sequence[Setting], cells: Sequence[Cell]) -> Iterator[str]:
    """Problems: settings that are written differently but stand for the same arms everywhere."""
    seen: dict[tuple[tuple[Setting, tuple[Arm, ...]], ...], Setting] = {}
    for setting in settings:
        own = tuple(
            (cell.column if part == "vary" else cell.row, cell.arms)
            for cell in cells
            if setting in (cell.row, cell.column)
        )
        twin = seen.setdefault(own, setting)
        if own and twin is not setting:
            yield f"{part}: '{setting.label}' and '{twin.label}' are the same arms; keep one"


def _strange_labels(
    labels: Mapping[str, Mapping[str, str]], *documents: Mapping[str, Any]
) -> Iterator[str]:
    """Problems: labels of axes and values that none of the documents has."""
    known = _written(documents, "vary", "across")
    for axis, named in labels.items():
        if axis not in known:
            yield f"labels.{axis}: {unknown('axis', axis, known)}"
        elif axis != AXIS:  # a block has several names
            for value in map(text, named):
                if value not in known[axis]:
                    stranger = unknown(f"value of {axis}", value, known[axis])
                    yield f"labels.{axis}.{value}: {stranger}"


def _strange_exceptions(
    rules: Sequence[Mapping[str, Sequence[Any]]], *documents: Mapping[str, Any]
) -> Iterator[str]:
    """Problems: axes and values in `except` that none of the documents has."""
    known = _written(documents, "base", "vary", "across")
    for place, rule in enumerate(rules):
        for axis, values in rule.items():
            if axis not in known:
                yield f"except.{place}.{axis}: {unknown('axis', axis, known)}"
            elif axis != AXIS:
                for value in map(text, values):
                    if value not in known[axis]:
                        stranger = unknown(f"value of {axis}", value, known[axis])
                        yield f"except.{place}.{axis}: {stranger}"


def _written(
    documents: Iterable[Mapping[str, Any]], *fields: str
) -> Mapping[str, Mapping[str, None]]:
    """{axis: its values} in these fields of the documents, each value once and as text."""
    known: dict[str, dict[str, None]] = {}
    for part in (document[name] for document in documents for name in fields):
        for setting in [part] if isinstance(part, Mapping) else part:
            for axis, values in setting.items():
                given = values if isinstance(values, list) else [values]
                known.setdefault(axis, {}).update(dict.fromkeys(map(text, given)))
    known.pop("label", None)
    return known


def _reference(wanted: Mapping[str, Any] | None, rows: Sequence[Setting]) -> Setting:
    if wanted is None:
        return rows[0]
    for row in rows:
        if row.as_dict() == dict(wanted):
            return row
    key = Setting(tuple(wanted.items()), "").key
    raise ConfigError([f"reference: {unknown('row', key, [row.key for row in rows])}"])


def _figure(
    options: Mapping[str, Any], rows: Sequence[Setting], columns: Sequence[Setting]
) -> FigureOptions:
    sides = {"row": rows, "column": columns}
    shown = {side: {*_axes(settings)} for side, settings in sides.items()}

    def plain(name: str) -> str:
        """The axis that 'row' or 'column' consists of, if it is a single one; else `name`."""
        axes = _axes(sides.get(name, ()))
        return axes[0] if len(axes) == 1 and all(s.values for s in sides[name]) else name

    x = plain(options["x"] or ("column" if shown["column"] else "row"))
    covered = shown.get(x, {x})
    rest = "row" if covered <= shown["column"] and shown["column"] else "column"
    crossed = {axis for settings in sides.values() for axis in _crossed(settings)}
    several = [axis for axis in _axes(sides[rest]) if axis in crossed]
    hue = plain(options["hue"] or (several[0] if covered and several else rest))
    axes = _axes((*rows, *columns))
    left = [axis for axis in axes if axis not in covered | shown.get(hue, {hue})]
    facets = tuple(left) if x != hue and crossed.issuperset(left) else ()
    given = options["scale"], options["kind"], tuple(options["also"])
    chosen = FigureOptions(x, hue, *given, facets)
    known = (*axes, *RESERVED_AXES)
    kinds = listed(FIGURE_KINDS, "prunesid.figures")
    problems = [
        f"figure.{field}: {unknown('figure kind', kind, kinds)}"
        for field, kind in (("kind", chosen.kind), *(("also", kind) for kind in chosen.also))
        if kind not in kinds
    ]
    strange = [(field, axis) for field, axis in (("x", x), ("hue", hue)) if axis not in known]
    if strange:
        field, axis = strange[0]
        problems.append(f"figure.{field}: {unknown('axis', axis, known)}")
    elif left and not facets:
        problems.append(f"figure: neither x ({x}) nor hue ({hue}) shows the axis '{left[0]}'")
    if problems:
        raise ConfigError(problems)
    return chosen


def _off_axis(
    figure: FigureOptions,
    rows: Iterable[Setting],
    columns: Iterable[Setting],
    reference: Setting,
) -> Iterator[str]:
    """Problems: values on a figure's numeric axis that are no numbers; the reference may be one."""
    own = reference.as_dict()
    settings = [setting.as_dict() for setting in (*rows, *columns)]
    values = {text(each[figure.x]) for each in settings if figure.x in each}
    beside = {value for value in values if not is_number(value)} - {text(own.get(figure.x))}
    for field, kinds in (("kind", (figure.kind,)), ("also", figure.also)):
        if LAYERS in kinds and (figure.x not in own or beside):
            found = f", with {', '.join(sorted(beside))}" if beside else ""
            yield (
                f"figure.{field}: '{LAYERS}' needs numbers along x, an axis of the rows, and only "
                f"the reference may have none; x is '{figure.x}'{found}"
            )


def is_number(value: str) -> bool:
    """Whether a value, as text, has a place on a numeric axis."""
    return value.replace(".", "", 1).isdigit()


def _crossed(settings: Sequence[Setting]) -> tuple[str, ...]:
    """The axes of settings that are all combinations of several axes' values; else none."""
    axes = _axes(settings)
    values = [{text(s.as_dict().get(axis)) for s in settings} for axis in axes]
    whole = all(len(s.values) == len(axes) for s in settings)
    varied = len([own for own in values if len(own) > 1])
    return axes if whole and varied > 1 and prod(map(len, values)) == len(settings) else ()


def _axes(settings: Iterable[Setting]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(axis for setting in settings for axis, _ in setting.values))
