"""Do findings travel from model to model? The order of the methods in several studies of one model.

A study's methods are compared by the ablation that `compared` names. Budgets differ between models,
and are matched by their order, the smallest with the smallest. A method is one way of choosing
tokens whatever its budget and seed; its value is the ablation's average over benchmarks.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from prunesid.study.analysis.comparison import ALL, AVERAGE, Samples, sample
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.metrics import Floats
from prunesid.study.analysis.pairs import read_pairs
from prunesid.study.analysis.power import LEVEL
from prunesid.study.analysis.statistics import EQUAL, interval
from prunesid.study.config.ablation import Ablation, Cell
from prunesid.study.config.arm import text
from prunesid.study.config.chapters import METHODS
from prunesid.study.config.study import Bootstrap, Study
from prunesid.study.layout import Layout

# With fewer images, none can be left out.
IMAGES = 2
# Verdicts on a difference that is significant on some model.
EVERYWHERE, TURNED, SOMEWHERE = "everywhere", "turned", "somewhere"


@dataclass(frozen=True)
class ChapterResults:
    """The results of the ablation that represents the study of one model.

    pairs    every two rows, as `pairs.compare_pairs` gives them
    samples  None where a benchmark has too few images
    """

    title: str
    ablation: Ablation
    pairs: pd.DataFrame
    samples: Samples | None


@dataclass(frozen=True)
class Standing:
    """The methods of a model at one budget, or what a source such as the paper prints of them.

    kept, tokens   the budget, and the number of tokens before pruning
    values, drawn  {method: its value} and {method: its value in every resample (B,)}, (1,) if fixed
    sure           pairs of methods of which the first is significantly better; None without tests
    """

    source: str
    kept: int
    tokens: int
    values: Mapping[str, float]
    drawn: Mapping[str, Floats]
    sure: frozenset[tuple[str, str]] | None


def read_chapter(study: Study, ablation: Ablation, bootstrap: Bootstrap) -> ChapterResults:
    """The results of a finished study; `bootstrap` is the same for all that are compared."""
    layout, benchmarks = Layout.of(study), study.benchmarks_of(ablation)
    scores = read_scores(layout.scores(benchmark.name) for benchmark in benchmarks)
    images = scores.groupby("benchmark")["image_id"].nunique()
    enough = all(images.get(benchmark.name, 0) >= IMAGES for benchmark in benchmarks)
    return ChapterResults(
        # All titles begin like this.
        title=study.title.removeprefix("PruneSID on "),
        ablation=ablation,
        pairs=read_pairs(layout.ablation("pairs.csv", ablation.name)),
        samples=sample(scores, ablation, benchmarks, bootstrap) if enough else None,
    )


def method_of(cell: Cell) -> str:
    """The method of a cell's arms as text, without budget and seed; the same in every study."""
    arm = cell.arms[0]
    given = {"dynamic": arm.dynamic, **arm.params} if arm.dynamic else arm.params
    return " ".join([arm.method, *(f"{name}={text(value)}" for name, value in given.items())])


def labels(chapters: Iterable[ChapterResults]) -> dict[str, str]:
    """{method: its label in the first chapter that has it}; a repeated label names its chapter."""
    found: dict[str, str] = {}
    for chapter in chapters:
        for cell in chapter.ablation.cells:
            label = cell.row.label
            alike = label in found.values()
            found.setdefault(method_of(cell), f"{label} ({chapter.title})" if alike else label)
    return found


def by_budget(ablation: Ablation) -> list[list[Cell]]:
    """The cells of every budget, the smallest first; the all-token arm's are left out."""
    budgets: dict[int, list[Cell]] = {}
    for cell in ablation.cells:
        if cell.arms[0].budget is not None:
            budgets.setdefault(cell.arms[0].budget, []).append(cell)
    return [budgets[budget] for budget in sorted(budgets)]


def standings(chapter: ChapterResults, names: Mapping[str, str]) -> list[Standing]:
    """The chapter's methods, by their `labels`, at every budget; none without samples.

    A method has no finite value, and is left out, if all tokens score 0 on a benchmark.
    """
    if chapter.samples is None:
        return []
    tokens = int(max(whole.tokens.max() for whole in chapter.samples.vanilla))
    pairs = chapter.pairs[chapter.pairs["benchmark"] == AVERAGE]
    pairs = pairs[(pairs["p_holm"] < LEVEL) & (pairs["diff"] > 0)]
    found = []
    for cells in by_budget(chapter.ablation):
        label = {cell.row.key: names[method_of(cell)] for cell in cells}
        columns = {cell.column.key or ALL for cell in cells}
        sure = pairs.loc[pairs["column"].isin(columns), ["row", "other"]]
        drawn, values = {}, {}
        for cell in cells:
            own = chapter.samples.average(cell.row, (cell.column,))
            if np.isfinite(own.values).all():
                drawn[label[cell.row.key]] = own.replicates
                values[label[cell.row.key]] = float(own.values.mean())
        found.append(
            Standing(
                source=chapter.title,
                kept=cells[0].arms[0].budget or 0,
                tokens=tokens,
                values=values,
                drawn=drawn,
                sure=frozenset((label[a], label[b]) for a, b in sure.itertuples(index=False)),
            )
        )
    return found


def places(sides: Iterable[tuple[str, Sequence[Standing]]]) -> pd.DataFrame:
    """The place of every method in each model's standings, a line each.

    model, source, budget (1 for the smallest), kept, tokens, method, value, and `methods`, a count
    place, shared  1 plus the number of better methods; whether an equal method shares the place
    low, high      the best and the worst place that significant differences allow; empty without
                   tests
    """
    lines = []
    for model, standings in sides:
        for budget, own in enumerate(standings, 1):
            line = {"model": model, "source": own.source, "budget": budget, "kept": own.kept}
            line |= {"tokens": own.tokens, "methods": len(own.values)}
            for method, value in own.values.items():
                ahead = np.array([*own.values.values()]) - value
                found = line | {"method": method, "value": value}
                found |= {"place": 1 + int((ahead > EQUAL).sum())}
                found |= {"shared": (np.abs(ahead) <= EQUAL).sum() > 1}
                if own.sure is not None:
                    found["low"] = 1 + sum(worse == method for _, worse in own.sure)
                    found["high"] = len(ahead) - sum(better == method for better, _ in own.sure)
                lines.append(found)
    names = ["model", "source", "budget", "kept", "tokens", "methods", "method"]
    return pd.DataFrame(lines, columns=[*names, "value", "place", "shared", "low", "high"])


def tau_b(first: Floats, second: Floats) -> Floats:
    """Kendall's tau-b, which counts ties (Kendall 1945), of M methods in every resample.

    first, second (M, B), or (M, 1) where resamples change nothing -> (B,); NaN where a side is all
    equal.
    """
    one, other = np.triu_indices(len(first), 1)
    changes = [values[one] - values[other] for values in (first, second)]
    a, b = (np.where(np.abs(change) > EQUAL, np.sign(change), 0.0) for change in changes)
    with np.errstate(invalid="ignore"):
        return np.asarray((a * b).sum(axis=0) / np.sqrt((a**2).sum(axis=0) * (b**2).sum(axis=0)))


def correlate(first: Standing, second: Standing, confidence: float) -> dict[str, float]:
    """The number of shared `methods`, their tau-b (`value`), and its interval (`low`, `high`).

    The interval joins the percentile interval and its mirror image about tau. Resampling adds noise
    to that of the images, so two orders are less alike in resamples, and the percentile interval
    alone would lie too near 0. With fewer than `METHODS` methods, or if one side is all equal, only
    `methods` is given.
    """
    common = [name for name in first.values if name in second.values]
    counted: dict[str, float] = {"methods": len(common)}
    if len(common) < METHODS:
        return counted
    values = (np.array([[side.values[name]] for name in common]) for side in (first, second))
    tau = float(tau_b(*values)[0])
    if np.isnan(tau):
        return counted
    drawn = (np.stack([side.drawn[name] for name in common]) for side in (first, second))
    low, high = interval(tau_b(*drawn), confidence)
    low, high = min(low, 2 * tau - high), max(high, 2 * tau - low)
    return counted | {"value": tau, "low": max(low, -1.0), "high": min(high, 1.0)}


def correlations(
    sides: Iterable[tuple[str, Sequence[Standing], Sequence[Standing]]], confidence: float
) -> pd.DataFrame:
    """`correlate` of a model and another source at the budgets that both have, a line each."""
    lines = [
        {"model": model, "source": b.source, "budget": budget} | correlate(a, b, confidence)
        for model, one, other in sides
        for budget, (a, b) in enumerate(zip(one, other, strict=False), 1)
    ]
    names = ["model", "source", "budget", "methods", "value", "low", "high"]
    return pd.DataFrame(lines, columns=names)


def differences(models: Sequence[Sequence[Standing]]) -> pd.DataFrame:
    """A line per budget and pair of methods that several models have: do the models agree?

    budget, method, worse  the methods in the order in which the first model that is sure has them
    verdict                EVERYWHERE: every model that has both is sure; TURNED: another is sure of
                           the opposite; SOMEWHERE: not all are sure; '' where none is
    sure, turned           models that are sure of this order, and of the opposite, joined by '; '
    models                 how many have both
    """
    lines = []
    for budget, standings in enumerate(itertools.zip_longest(*models), 1):
        here = [standing for standing in standings if standing]
        methods = dict.fromkeys(name for standing in here for name in standing.values)
        for pair in itertools.combinations(methods, 2):
            both = {s.source: s.sure or () for s in here if s.values.keys() >= {*pair}}
            if len(both) < 2:
                continue
            ways = (pair, pair[::-1])
            method, worse = next((w for own in both.values() for w in ways if w in own), pair)
            sure, turned = (
                [name for name, own in both.items() if way in own]
                for way in ((method, worse), (worse, method))
            )
            verdict = TURNED if turned else EVERYWHERE if len(sure) == len(both) else SOMEWHERE
            line = {"budget": budget, "method": method, "worse": worse}
            line |= {"verdict": verdict if sure else "", "models": len(both)}
            lines.append(line | {"sure": "; ".join(sure), "turned": "; ".join(turned)})
    names = ["budget", "method", "worse", "verdict", "sure", "turned", "models"]
    return pd.DataFrame(lines, columns=names)
