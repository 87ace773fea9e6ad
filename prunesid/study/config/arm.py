"""An arm: one way of choosing visual tokens, named by how it differs from the default arm.

A name that lists only differences stays the same when the library gains a parameter, so nothing
that was computed under it has to be computed again.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from prunesid.core.crops import OF_ARMS
from prunesid.core.parameters import Param
from prunesid.core.registry import unknown
from prunesid.methods.features import is_random
from prunesid.methods.features.prunesid.information import RULES
from prunesid.methods.registry import DECODER, ENCODER, METHODS, requirements, resolve
from prunesid.study.config.documents import ConfigError

DEFAULT_METHOD = "prunesid"
DEFAULT_BUDGET = 64
ALL_TOKENS = "vanilla"
# The label of that arm in tables and figures.
WHOLE = "all tokens"
# Why images cannot share the budget of a method, by the place where it acts.
UNSHARED = {
    DECODER: "drops tokens inside the language model, by what is asked; images cannot",
    ENCODER: "acts inside the encoder, by one plan for all images; they cannot",
}


@dataclass(frozen=True)
class Arm:
    """`params` holds what differs from the method's defaults; `budget` None keeps all tokens.

    The budget of a late arm is the mean, over the language model's layers, of the visual tokens
    that enter a layer; all other arms' tokens are the same in every layer.

    `dynamic` names the rule by which images share the budget, which is then their mean; None gives
    every image the same. `crops` holds what differs from the method's own treatment of an image in
    crops, or a clip (`prunesid.core.crops.OF_ARMS`).
    """

    name: str
    method: str
    budget: int | None
    params: Mapping[str, Any] = field(default_factory=dict, hash=False)
    seed: int = 0
    dynamic: str | None = None
    crops: Mapping[str, str] = field(default_factory=dict, hash=False)

    @property
    def is_vanilla(self) -> bool:
        return self.budget is None

    @property
    def is_late(self) -> bool:
        """True if its tokens are dropped inside the language model."""
        return not self.is_vanilla and METHODS[self.method].place == DECODER

    @property
    def encodes(self) -> bool:
        """True if its tokens come from an encoder pass of its own."""
        return not self.is_vanilla and METHODS[self.method].place == ENCODER

    @property
    def selects(self) -> bool:
        """True if its tokens are chosen before the language model."""
        return not self.is_vanilla and not self.is_late

    @property
    def asked(self) -> tuple[str, ...]:
        """The kinds of relevance (`Needs.relevance`) by which it chooses tokens for each question.

        () for an arm whose tokens do not depend on the question, come from an encoder pass of its
        own, or are dropped inside the language model.
        """
        if not self.selects or self.encodes:
            return ()
        return requirements(self.method, **self.params).relevance

    def resolved(self) -> dict[str, Any]:
        """Everything that determines the kept tokens: method, budget, seed and all parameters."""
        given = {"method": self.method, "budget": self.budget, "seed": self.seed}
        if self.dynamic is not None:
            given["dynamic"] = self.dynamic
        given |= self.crops
        return given if self.is_vanilla else given | resolve(self.method, **self.params)


VANILLA = Arm(ALL_TOKENS, ALL_TOKENS, None)


def make_arm(setting: Mapping[str, Any], seed: int = 0) -> Arm:
    """The arm of a setting: `method`, `budget`, `dynamic`, choices for crops, and parameters.

    A budget of None or 'all', or the method 'vanilla', gives the arm that keeps all tokens. A
    parameter that changes nothing is dropped, so that equal arms have one name. ValueError for an
    unknown method, rule or parameter, a budget that is no positive whole number, or a rule with a
    method that takes none.
    """
    method = setting.get("method", DEFAULT_METHOD)
    budget = setting.get("budget", DEFAULT_BUDGET)
    dynamic = setting.get("dynamic")
    if dynamic is not None and dynamic not in RULES:
        choices = (*RULES, "null (every image the same)")
        raise ValueError(f"dynamic: {unknown('rule', dynamic, choices)}")
    if method == ALL_TOKENS:
        return VANILLA
    others = {"method", "budget", "dynamic", *OF_ARMS}
    params = {k: v for k, v in setting.items() if k not in others}
    resolved = resolve(method, **params)
    if budget is None or budget == "all":
        return VANILLA
    if not isinstance(budget, int) or isinstance(budget, bool) or budget < 1:
        quoted = isinstance(budget, str) and budget.isdecimal()
        hint = "; in quotes it is text: write it without them" if quoted else ""
        raise ValueError(f"budget: {budget!r} is no positive number of tokens (or 'all'){hint}")
    chosen = {name: setting[name] for name in OF_ARMS if setting.get(name) is not None}
    crops = {
        name: str(Param(None, str, OF_ARMS[name]).check(name, choice))
        for name, choice in chosen.items()
    }
    place = METHODS[method].place
    if dynamic is not None and place in UNSHARED:
        raise ValueError(f"dynamic: {method} {UNSHARED[place]} share its budget")
    if crops and place in UNSHARED:
        raise ValueError(f"{next(iter(crops))}: {method} does not choose among crops or frames")
    groups = resolved.get("num_groups")
    if isinstance(groups, int) and groups > budget:
        raise ValueError(
            f"num_groups: {groups} groups cannot share a budget of {budget} tokens (K > N)"
        )
    for name in sorted(params):
        without = {k: v for k, v in params.items() if k != name}
        if resolve(method, **without) == resolved:
            params = without
    params = dict(sorted(params.items()))
    name = _name(method, budget, dynamic, params | crops, seed)
    return Arm(name, method, budget, params, seed, dynamic, crops)


def once(arms: Iterable[Arm]) -> tuple[Arm, ...]:
    """Every arm once. ConfigError for different arms of one name, whose results would be mixed."""
    found: dict[str, Arm] = {}
    for arm in arms:
        other = found.setdefault(arm.name, arm)
        if arm != other:
            values = " and ".join(str(dict(each.params)) for each in (other, arm))
            raise ConfigError(
                [f"arms that differ would have one name, {arm.name!r}: {values}; change a value"]
            )
    return tuple(found.values())


def seeds_of(setting: Mapping[str, Any], count: int) -> tuple[Arm, ...]:
    """The arms of a setting: one per seed 0..count-1 where chance plays a part, else one."""
    first = make_arm(setting)
    chosen = first.selects and not first.encodes
    if not chosen or not is_random(first.method, **first.params):
        return (first,)
    return tuple(make_arm(setting, seed) for seed in range(count))


def shared_budgets(arms: Iterable[Arm]) -> list[tuple[str, int]]:
    """The (rule, mean budget) of the dynamic arms, each once."""
    dynamic = ((arm.dynamic, arm.budget) for arm in arms)
    return sorted({(rule, mean) for rule, mean in dynamic if rule is not None and mean is not None})


def text(value: object) -> str:
    """A parameter's value as names and labels show it."""
    if value is None or isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, float):
        short = f"{value:g}"
        return short if float(short) == value else repr(value)
    return str(value)


def _name(
    method: str, budget: int, dynamic: str | None, params: Mapping[str, Any], seed: int
) -> str:
    given: dict[str, Any] = {"method": method, "budget": budget, "dynamic": dynamic}
    given |= {**params, "seed": seed}
    default = {"method": DEFAULT_METHOD, "budget": DEFAULT_BUDGET, "dynamic": None, "seed": 0}
    parts = [
        f"{key}-{re.sub(r'[^A-Za-z0-9.+-]+', '-', text(value))}"
        for key, value in given.items()
        if key not in default or value != default[key]
    ]
    return "_".join(parts) or "default"
