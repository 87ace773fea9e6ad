"""Methods that reduce visual tokens, one file each, and `compress`, which runs any of them.

A method is a function `(record, budget, draws, **parameters) -> Kept`:

    @register("name", params={"alpha": Param(0.5, float, minimum=0)}, needs=Needs(keys=True))
    def name(record, budget, draws, *, alpha): ...

`budget` is a (B,) int64 tensor on the record's device, and `draws` the source of random numbers.
A method that reads `record.relevance` (`needs=Needs(relevance=ASKED)`) chooses by image and
question: its records hold a row for every question on an image (`prunesid.images.relevance`). A
method may also declare how its authors treat an image in crops (`prunesid.core.crops`), and how
the crops share the image's budget (`Split`). The modules of this package are found automatically.
Other modules call `register`, or plug-ins name them in the entry-point group `prunesid.methods`.
"""

from __future__ import annotations

import numbers
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import NoneType

from prunesid.core.costs import Visual
from prunesid.core.crops import PACKED, Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.faults import MethodError, blamed, said
from prunesid.core.needs import ASKED, NO_NEEDS, Needs
from prunesid.core.parameters import Param, Value, check_parameters
from prunesid.core.record import Kept, VisionRecord
from prunesid.core.registry import check_function
from prunesid.core.seeding import Draws
from prunesid.methods.outcome import check_form, check_kept
from prunesid.methods.registry import (
    FEATURES,
    METHODS,
    QUESTION,
    Method,
    Resolved,
    Source,
    list_methods,
    method_at,
    requirements,
    resolve,
    stated,
)

__all__ = [
    "ASKED",
    "BudgetRule",
    "Kept",
    "Needs",
    "Param",
    "Source",
    "Split",
    "compress",
    "register",
]

# Elements of one (B, T, T) tensor: 25 images of 576 tokens, 67 MB in float64.
CHUNK_ELEMENTS = 2**23

NOTHING: Mapping[str, object] = {}

Macs = Callable[[Visual, int, Resolved], "int | None"]


@dataclass(frozen=True)
class Split:
    """A method's own rule for sharing a budget among a base crop and its sub-crops.

    share  a function `(base, budget, crops, **parameters)`. `base` is the base crop's record
           (B = 1), `budget` the tokens of all crops, `crops` the rows and columns of sub-crops,
           (0, 0) for a base crop alone. It returns the tokens of the base crop and of each sub-crop
           in raster order, each 0 or more
    needs  fields that `share` reads of the base crop, beyond those that the method reads of each
    then   parameters with which the method reduces each crop to its share
    """

    share: Callable[..., Sequence[int]]
    needs: Needs = NO_NEEDS
    then: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class BudgetRule:
    """How a method turns a budget into tokens per image, if the budget is not that number itself.

    tokens  a function `(budget, patches, parameters)` that returns the number of tokens kept of an
            image of so many patches
    then    parameters that make the method read a budget as the number of tokens kept
    """

    tokens: Callable[[int, int, Resolved], int]
    then: Mapping[str, Value]

    def of(self, parameters: Resolved) -> Callable[[int, int], int]:
        """`tokens` with the parameters filled in."""
        return lambda budget, patches: self.tokens(budget, patches, parameters)


@dataclass(frozen=True, kw_only=True)
class FeatureMethod(Method):
    """A registered method that acts on features; `register` explains the fields."""

    place = FEATURES
    random: Callable[[Resolved], bool]
    exact: Callable[[Resolved], bool]
    macs: Macs
    split: Split | None = None
    crops: Crops | None = None
    budget_rule: BudgetRule | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        for what, kind in (("split", Split), ("crops", Crops), ("budget_rule", BudgetRule)):
            value = getattr(self, what)
            if not isinstance(value, (kind, NoneType)):
                raise ValueError(f"`{what}` is a {kind.__name__}, not {value!r}")
            check_parameters(f"`{what}`", self.params, getattr(value, "then", {}))


def register(
    name: str,
    *,
    params: Mapping[str, Param] | None = None,
    complete: Callable[[Resolved], Resolved] = dict,
    needs: Needs | Callable[[Resolved], Needs] = NO_NEEDS,
    random: bool | Callable[[Resolved], bool] = False,
    exact: bool | Callable[[Resolved], bool] = True,
    macs: int | Macs | None = None,
    split: Split | None = None,
    crops: Crops | None = None,
    budget_rule: BudgetRule | None = None,
    source: Source | None = None,
) -> Callable[[Callable[..., Kept]], Callable[..., Kept]]:
    """A decorator that registers a method.

    ValueError if the name is taken, a parameter has a name that arms use themselves, or the
    function does not take all parameters.

    complete  fills in parameters that depend on others (presets) and rejects invalid combinations
    needs     the record fields that it reads: a constant, or a function of the complete parameters
    random    whether its result depends on the seed: a constant, or a function likewise
    exact     whether an image of T > N tokens keeps exactly its budget N: a constant, or a function
              likewise. False: any number from 1 to T
    macs      multiply-adds of choosing among an image's tokens (counted as in
              `prunesid.core.costs`): a constant, or a function `(visual, budget, parameters)`.
              None, also as the function's result, means that there is no formula
    split     the way in which the crops of an image share its budget; None: evenly
    crops     the authors' treatment of an image in crops; None if they have no code for it
    budget_rule  the tokens that a budget stands for; None: the budget itself
    source    the paper and the authors' code; None for a baseline
    """
    place = METHODS.register(name)

    def add(run: Callable[..., Kept]) -> Callable[..., Kept]:
        entry = FeatureMethod(
            run=run,
            params=params or {},
            complete=stated(name, "complete", complete, dict),
            needs=stated(name, "needs", needs, Needs),
            random=stated(name, "random", random, bool),
            exact=stated(name, "exact", exact, bool),
            macs=stated(name, "macs", macs, int, NoneType),
            split=split,
            crops=crops,
            budget_rule=budget_rule,
            source=source,
        )
        check_function(f"method {name!r}", run, "record", "budget", "draws", named=[*entry.params])
        place(entry)
        return run

    return add


def list_feature_methods() -> list[str]:
    """The names that `compress` accepts, sorted."""
    return list(list_methods(FEATURES, QUESTION))


def _method(name: str) -> FeatureMethod:
    entry = method_at(name, FEATURES)
    assert isinstance(entry, FeatureMethod)
    return entry


def requirements_in_crops(method: str, **params: object) -> Needs:
    """The fields that a method reads of images in crops, including those that its split reads."""
    split = _method(method).split
    return requirements(method, **params) | (NO_NEEDS if split is None else split.needs)


def split_of(method: str) -> Split | None:
    """The method's rule for sharing a budget among the crops of an image; None: evenly."""
    return _method(method).split


def budget_rule_of(method: str) -> BudgetRule | None:
    """The rule by which the method reads a budget; None: as the number of tokens."""
    return _method(method).budget_rule


def authors_crops(method: str) -> Crops | None:
    """The authors' treatment of an image in crops; None if they have no code for it."""
    return _method(method).crops


def crops_of(method: str, chosen: Mapping[str, object] = NOTHING, **params: object) -> Crops:
    """The method's treatment of an image in crops: the authors', except for the options `chosen`.

    Newline embeddings exist only as projected tokens. ValueError if they would be candidates of a
    method that reads anything else.
    """
    found = (_method(method).crops or Crops()).under(chosen)
    if found.scope == PACKED and requirements(method, **params) != Needs(projected=True):
        able = [
            each for each in list_feature_methods() if requirements(each) == Needs(projected=True)
        ]
        raise ValueError(
            f"scope='packed' has newline embeddings among its candidates, which {method} cannot "
            f"choose from: it reads more than projected tokens. Methods that do not: "
            f"{', '.join(able)}."
        )
    return found


def is_random(method: str, **params: object) -> bool:
    """Whether the result depends on the seed."""
    return _method(method).random(resolve(method, **params))


def selection_macs(method: str, visual: Visual, budget: int, **params: object) -> int | None:
    """Multiply-adds of choosing `budget` of an image's tokens, by the method's formula.

    The result is 0 if there is nothing to choose, None if the method has no formula. ValueError on
    unknown names and values.
    """
    resolved = resolve(method, **params)
    return 0 if budget >= visual.tokens else _method(method).macs(visual, budget, resolved)


def compress(
    record: VisionRecord,
    method: str,
    *,
    budget: int | Tensor,
    seed: int | Sequence[int] = 0,
    **params: object,
) -> Kept:
    """Reduce the T patch tokens of every image to its budget.

    record  the vision features of B images
    method  one of `list_feature_methods()`, with its own `params`
    budget  tokens kept per image: an int, or a (B,) integer tensor. An image of at most that many
            tokens comes back unchanged, with a warning if an int exceeds them. Some methods read a
            budget differently (`BudgetRule`)
    seed    an int, or one per image. A random choice depends on the seed and the image, never on
            the batch, so a batch gives the same tokens as its images one by one

    Raises ValueError on unknown names and parameters, on methods that act elsewhere, on budgets
    below 1, on NaN or infinite features, and on a record that lacks a field the method needs.
    MethodError, a ValueError, names the method and the image if the method raises, or returns NaN,
    a wrong count, an index that repeats, or an index that belongs to no patch.
    """
    entry = _method(method)
    resolved = resolve(method, **params)
    _check_record(record, method, resolved)
    budgets = _budgets(budget, record)
    asked = None if isinstance(budget, torch.Tensor) else budget
    if entry.budget_rule is not None:
        meant = entry.budget_rule.of(resolved)
        wanted = [meant(each, record.num_tokens) for each in budgets.tolist()]
        asked = asked and max(wanted)
        budgets, resolved = budgets.new_tensor(wanted), resolved | dict(entry.budget_rule.then)
    if asked is not None and asked > record.num_tokens:
        reason = f"budget {asked} exceeds the {record.num_tokens} tokens of an image"
        warnings.warn(f"nothing is pruned: {reason}", stacklevel=2)
    seeds = [seed] * len(record) if isinstance(seed, (int, numbers.Integral)) else list(seed)
    if len(seeds) != len(record):
        raise ValueError(f"{len(seeds)} seeds for {len(record)} images")
    # Chunks bound the memory. Images are independent, so chunks change nothing else.
    size = max(1, CHUNK_ELEMENTS // record.num_tokens**2)

    def run(start: int, size: int) -> Kept:
        rows = slice(start, start + size)
        part = record.rows(rows)
        kept: Kept = entry.run(
            part, budgets[rows], Draws(part, tuple(map(int, seeds[rows]))), **resolved
        )
        check_form(kept, part)
        return kept

    most = budgets.clamp(max=record.num_tokens)
    sizes = torch.full_like(most, record.num_tokens)
    exact = entry.exact(resolved)
    with torch.no_grad(), blamed(lambda row: _whose(method, record, row)):
        parts = []
        for start in range(0, len(record), size):
            try:
                parts.append(run(start, size))
            except (ImportError, torch.OutOfMemoryError):  # no image brings these about
                raise
            except Exception as error:  # a method may raise anything, and has to be named
                cause = error.__cause__ if isinstance(error, MethodError) else error
                rows = range(start, min(start + size, len(record)))
                raise MethodError(said(error), _culprit(run, rows)) from cause
        kept = Kept.cat(parts)
        least = most if exact else torch.ones_like(most)
        check_kept(kept, sizes, least, most if exact else sizes, record.tokens)
    return kept


def _whose(method: str, record: VisionRecord, row: int | None) -> str:
    return method if row is None else f"{method} on {_image(record, row)}"


def _image(record: VisionRecord, row: int) -> str:
    if record.image_ids is None:
        return f"row {row} of {len(record)}"
    return f"image {record.image_ids[row]!r}"


def _culprit(run: Callable[[int, int], Kept], rows: Sequence[int]) -> int | None:
    """The first row that makes a method raise by itself; None if only several together do."""
    for row in rows:
        try:
            run(row, 1)
        except Exception:  # whatever it raised for all of them
            return row
    return None


def _budgets(budget: int | Tensor, record: VisionRecord) -> Tensor:
    device = record.features.device
    if isinstance(budget, torch.Tensor):
        if budget.shape != (len(record),) or budget.is_floating_point() or budget.is_complex():
            raise ValueError(
                f"budget must be an int or an integer tensor of shape ({len(record)},), "
                f"not {budget.dtype} {tuple(budget.shape)}"
            )
        budgets = budget.to(device=device, dtype=torch.long)
    elif isinstance(budget, bool) or not isinstance(budget, (int, numbers.Integral)):
        raise ValueError(f"budget must be an int or a (B,) integer tensor, not {budget!r}")
    else:
        budgets = torch.full((len(record),), int(budget), dtype=torch.long, device=device)
    if int(budgets.min()) < 1:
        raise ValueError(f"budget must be at least 1 token, not {int(budgets.min())}")
    return budgets


def _check_record(record: VisionRecord, method: str, resolved: Resolved) -> None:
    used = {"features": record.features, **_method(method).needs(resolved).of(record)}
    for name, tensor in used.items():
        # The extremes are NaN or infinite if any value is.
        if tensor is not None and not torch.stack(tensor.aminmax()).isfinite().all():
            row = int((~tensor.isfinite()).flatten(1).any(dim=1).nonzero()[0])
            raise ValueError(
                f"{name} holds NaN or infinite values, before {method}: {_image(record, row)}."
            )
    missing = [name for name, tensor in used.items() if tensor is None]
    if missing:
        advice = "".join(_advice(record, method, resolved, name) for name in missing)
        able = [each for each in list_feature_methods() if _enough(record, requirements(each))]
        raise ValueError(
            f"{method} needs {', '.join(missing)}, which this record lacks. {advice}"
            f"Methods that need no more than it has: {', '.join(able)}."
        )


def _enough(record: VisionRecord, needs: Needs) -> bool:
    return all(tensor is not None for tensor in needs.of(record).values())


def _advice(record: VisionRecord, method: str, resolved: Resolved, name: str) -> str:
    if name.startswith("hidden"):
        return f"Layers it holds: {', '.join(map(str, sorted(record.hidden))) or 'none'}. "
    ways = []
    for param, spec in _method(method).params.items():
        for value in spec.values():
            try:
                needs = requirements(method, **{**resolved, param: value})
            except ValueError:
                continue
            if not getattr(needs, name):
                ways.append(f"{param}={value!r}")
    return f"{method} does without {name} with {' or '.join(ways)}. " if ways else ""
