"""An ablation: one YAML that says what varies, and across what; arms, table and figure follow.

The rows of an ablation are the settings under study (`vary`), its columns what each is studied
under (`across`). Both are either a mapping of axes to values, all combinations of which are taken,
or a list of settings. An axis is `method`, `budget`, `dynamic` or any parameter of a method. The
cell of a row and a column is one arm, or one per seed where chance plays a part; `except` names
cells that are left out.
"""

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from prunesid.core.registry import listed, unknown
from prunesid.study.config.arm import ALL_TOKENS, VANILLA, Arm, seeds_of, text
from prunesid.study.config.documents import ConfigError, check, read_schema, read_yaml
from prunesid.study.config.layers import with_blocks

RESERVED_AXES = frozenset({"row", "column"})
FIGURE_KINDS = "prunesid.study.report.figures"
FIGURE = "figure"


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

    paper_table  number of the paper's table to show beside ours
    average      'overall' (one column, as in table 5) or 'column' (one per column, as in table 6)
    """

    paper_table: int | None
    average: str


@dataclass(frozen=True)
class FigureOptions:
    """`x` and `hue` name axes, or 'row' or 'column' for a whole setting.

    kind  file in prunesid/study/report/figures, or plug-in, that draws the figure
    also  further kinds, drawn beside it
    """

    x: str
    hue: str
    scale: str
    kind: str
    also: tuple[str, ...] = ()

    @property
    def kinds(self) -> dict[str, str]:
        """Every picture's file name, without its suffix, and the kind that draws it."""
        return {FIGURE: self.kind} | {kind: kind for kind in self.also}


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

    def columns_of(self, row: Setting) -> tuple[Setting, ...]:
        """The columns under which a row is run."""
        return tuple(cell.column for cell in self.cells if cell.row == row)

    @property
    def arms(self) -> tuple[Arm, ...]:
        """Every arm of the ablation once, the all-token arm first."""
        arms = itertools.chain([VANILLA], *(cell.arms for cell in self.cells))
        return tuple({arm.name: arm for arm in arms}.values())


def load_ablation(
    path: Path,
    root: Path,
    seeds: int = 3,
    depth: int | None = None,
    overrides: Mapping[str, Any] | None = None,
) -> Ablation:
    """The ablation in a YAML file.

    seeds      the study's number, which the file may override
    depth      number of blocks of the model's vision tower, for the axis `layer`
    overrides  fields that take the place of the file's

    ConfigError lists every problem: unknown fields, methods, parameters and values with the nearest
    valid name, more groups than tokens, a layer that the tower lacks, a reference that is no row, a
    figure that leaves an axis out.
    """
    document, origin = read_yaml(path), str(path)
    if overrides and isinstance(document, Mapping):
        document, origin = {**document, **overrides}, f"{path} (with the study's overrides)"
    document, problems = check(document, read_schema("ablation", root), origin)
    if problems:
        raise ConfigError(problems)
    try:
        return parse_ablation(path.stem, document, seeds, depth)
    except ConfigError as error:
        raise ConfigError(f"{origin}: {problem}" for problem in error.problems) from error


def parse_ablation(
    name: str, document: Mapping[str, Any], seeds: int = 3, depth: int | None = None
) -> Ablation:
    """The ablation of a document that fits the schema and has its defaults; errors as above."""
    document, problems = with_blocks(document, depth)
    if problems:
        raise ConfigError(problems)
    labels = document["labels"]
    rows = _settings(document["vary"], labels)
    columns = _settings(document["across"], labels)
    count = document["seeds"] or seeds
    base = tuple(document["base"].items())
    left_out = document["except"]
    problems = _clashes(base, rows, columns) + _strangers(left_out, base, rows, columns)
    cells = []
    for row, column in itertools.product(rows, columns):
        setting = dict((*base, *column.values, *row.values))
        if any(_matches(setting, rule) for rule in left_out):
            continue
        try:
            cells.append(Cell(row, column, seeds_of(setting, count)))
        except ValueError as error:
            problems.append(str(error))
    reference = _reference(document["reference"], rows, problems)
    if left_out:
        run = {(cell.row, cell.column) for cell in cells}
        if not problems and any((reference, column) not in run for column in columns):
            problems.append("except: the reference is compared under every column; leave it in")
        # What is wholly left out, for example by a study that has fewer columns, is no row.
        rows = tuple(row for row in rows if any((row, column) in run for column in columns))
    figure = _figure(document["figure"], rows, columns, problems)
    if problems:
        raise ConfigError(problems)
    return Ablation(
        name=name,
        title=document["title"],
        description=document["description"].strip(),
        base=base,
        rows=rows,
        columns=columns,
        reference=reference,
        benchmarks=tuple(document["benchmarks"]) if document["benchmarks"] else None,
        seeds=count,
        cells=tuple(cells),
        table=TableOptions(**document["table"]),
        figure=figure,
    )


def _settings(
    varied: Mapping[str, Sequence[Any]] | Sequence[Mapping[str, Any]], labels: Mapping[str, Any]
) -> tuple[Setting, ...]:
    if isinstance(varied, Mapping):
        combinations: Iterable[dict[str, Any]] = (
            dict(zip(varied, values, strict=True)) for values in itertools.product(*varied.values())
        )
    else:
        combinations = (dict(setting) for setting in varied)
    return tuple(_setting(values, labels) for values in combinations)


def _setting(values: dict[str, Any], labels: Mapping[str, Any]) -> Setting:
    label = values.pop("label", None)
    return Setting(
        tuple(values.items()), label or ", ".join(_label_parts(values, labels)) or "default"
    )


def _label_parts(values: Mapping[str, Any], labels: Mapping[str, Any]) -> Iterator[str]:
    for axis, value in values.items():
        known = {text(k): v for k, v in labels.get(axis, {}).items()}
        plain = text(value) if isinstance(value, str) else f"{axis.replace('_', ' ')} {text(value)}"
        yield known.get(text(value), f"{value} tokens" if axis == "budget" else plain)


def _matches(setting: Mapping[str, Any], rule: Mapping[str, Sequence[Any]]) -> bool:
    """Whether a setting has one of the rule's values on each of its axes."""
    return all(
        axis in setting and text(setting[axis]) in map(text, values)
        for axis, values in rule.items()
    )


def _strangers(
    rules: Sequence[Mapping[str, Any]],
    base: Iterable[tuple[str, Any]],
    rows: Iterable[Setting],
    columns: Iterable[Setting],
) -> list[str]:
    """Problems: names in `except` that are no axes."""
    known = (*dict(base), *_axes((*rows, *columns)))
    named = dict.fromkeys(axis for rule in rules for axis in rule)
    return [f"except: {unknown('axis', axis, known)}" for axis in named if axis not in known]


def _clashes(base: Iterable[Any], rows: Iterable[Setting], columns: Iterable[Setting]) -> list[str]:
    problems = []
    row_axes, column_axes = set(_axes(rows)), set(_axes(columns))
    for axis in sorted(row_axes & column_axes):
        problems.append(f"the axis '{axis}' stands in both vary and across; keep it in one of them")
    for axis in sorted({a for a, _ in base} & (row_axes | column_axes)):
        problems.append(f"'{axis}' stands in base, where it is fixed, and varies as an axis")
    if "seed" in row_axes | column_axes:
        problems.append("'seed' is no axis: `seeds` sets how many seeds a random arm runs with")
    for axis in sorted(RESERVED_AXES & (row_axes | column_axes)):
        problems.append(f"'{axis}' cannot name an axis; it stands for a whole setting in `figure`")
    for part, settings in (("vary", rows), ("across", columns)):
        keys = [setting.key for setting in settings]
        problems += [
            f"{part}: '{key}' occurs twice"
            for key in sorted({k for k in keys if keys.count(k) > 1})
        ]
    return problems


def _reference(
    wanted: Mapping[str, Any] | None, rows: tuple[Setting, ...], problems: list[str]
) -> Setting:
    if wanted is None:
        return rows[0]
    for row in rows:
        if row.as_dict() == dict(wanted):
            return row
    key = ",".join(f"{axis}={text(value)}" for axis, value in wanted.items())
    problems.append(f"reference: {unknown('row', key, [r.key for r in rows])}")
    return rows[0]


def _figure(
    options: Mapping[str, Any],
    rows: tuple[Setting, ...],
    columns: tuple[Setting, ...],
    problems: list[str],
) -> FigureOptions:
    row_axes, column_axes = _axes(rows), _axes(columns)
    axes = _axes((*rows, *columns))
    whole = {"row": set(row_axes), "column": set(column_axes)}
    x = _plain(options["x"] or ("column" if column_axes else "row"), rows, columns)
    covered = whole.get(x, {x})
    rest = "row" if covered <= whole["column"] and column_axes else "column"
    hue = _plain(options["hue"] or rest, rows, columns)
    chosen = FigureOptions(x, hue, options["scale"], options["kind"], tuple(options["also"]))
    kinds = listed(FIGURE_KINDS, "prunesid.figures")
    for place, kind in (("kind", chosen.kind), *(("also", kind) for kind in chosen.also)):
        if kind not in kinds:
            problems.append(f"figure.{place}: {unknown('figure kind', kind, kinds)}")
    for place, axis in (("x", x), ("hue", hue)):
        if axis not in (*axes, *RESERVED_AXES):
            problems.append(f"figure.{place}: {unknown('axis', axis, (*axes, *RESERVED_AXES))}")
            return chosen
    left = [axis for axis in axes if axis not in covered | whole.get(hue, {hue})]
    if left:
        problems.append(f"figure: neither x ({x}) nor hue ({hue}) shows the axis '{left[0]}'")
    return chosen


def _axes(settings: Iterable[Setting]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(axis for setting in settings for axis, _ in setting.values))


def _plain(name: str, rows: tuple[Setting, ...], columns: tuple[Setting, ...]) -> str:
    """The one axis that 'row' or 'column' comes down to where there is but one, else `name`."""
    settings = {"row": rows, "column": columns}.get(name, ())
    axes = _axes(settings)
    return axes[0] if len(axes) == 1 and all(s.values for s in settings) else name
