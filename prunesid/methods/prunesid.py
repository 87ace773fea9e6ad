"""PruneSID (ICLR 2026): principal groups, non-maximum suppression in each, quotas (sections 3.2-3.3).

Three presets. `paper` is the paper's text, `release` the authors' LLaVA code, `matched` replaces
the paper's threshold by the one that leaves as many survivors as there are places. Every difference
between them is a parameter.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from prunesid import information, nms, psca
from prunesid import quotas as quota
from prunesid.accounting import Visual
from prunesid.crops import Crops
from prunesid.groupings import GROUPINGS, GroupingContext
from prunesid.methods import Needs, register
from prunesid.numerics import rank_descending
from prunesid.parameters import Param
from prunesid.parametric import Resolved
from prunesid.record import Kept, VisionRecord, keep
from prunesid.scores import SCORES
from prunesid.seeding import Draws

ORDERS = ("raster", "groups")
PAPER: Resolved = {
    "score": "abs_v",
    "center": "tokens",
    "solver": "exact",
    "threshold": "scaled",
    "cap": "none",
    "rounding": "largest_remainder",
    "refill": "score",
    "cls_token": False,
    "order": "raster",
}
PRESETS: dict[str, Resolved] = {
    "paper": PAPER,
    "release": {
        **PAPER,
        "score": "cls_attention",
        "center": "channels",
        "solver": "randomized",
        "cap": "release",
        "rounding": "cumulative",
        "refill": "caps",
        "cls_token": True,
        "order": "groups",
    },
    "matched": {**PAPER, "threshold": "matched"},
}
# What a threshold rule other than the one named makes meaningless.
QUOTA_RULES = ("cap", "rounding", "refill")

PARAMS = {
    "preset": Param("paper", str, tuple(PRESETS)),
    "grouping": Param("psca", str, GROUPINGS.names),
    "num_groups": Param(None, int, minimum=1),
    "score": Param(None, str, SCORES.names),
    "center": Param(None, str, psca.CENTERS),
    "solver": Param(None, str, psca.SOLVERS),
    "threshold": Param(None, str, nms.THRESHOLDS),
    "lam": Param(None, float),
    "cap": Param(None, str, quota.CAPS),
    "rounding": Param(None, str, quota.ROUNDINGS),
    "refill": Param(None, str, quota.REFILLS),
    "cls_token": Param(None, bool),
    "order": Param(None, str, ORDERS),
    "layer": Param(None, int, minimum=0),
}


def _complete(given: Resolved) -> Resolved:
    switches = PRESETS[str(given["preset"])]
    full = {
        name: switches[name] if value is None and name in switches else value
        for name, value in given.items()
    }
    if full["threshold"] == "matched":
        for name in QUOTA_RULES:
            if given[name] is not None:
                raise ValueError(
                    f"{name} has no effect with threshold='matched', which leaves no quotas to set."
                )
            full[name] = None
    if full["threshold"] != "scaled" and given["lam"] is not None:
        raise ValueError(f"lam has no effect with threshold={full['threshold']!r}.")
    return full


def _needs(params: Resolved) -> Needs:
    layer = params["layer"]
    return Needs(
        cls_attention=SCORES[str(params["score"])].cls_attention,
        cls=bool(params["cls_token"]),
        layers=frozenset() if layer is None else frozenset({int(layer)}),
    )


def _random(params: Resolved) -> bool:
    return GROUPINGS[str(params["grouping"])].random or params["solver"] == "randomized"


def _macs(visual: Visual, budget: int, params: Resolved) -> int | None:
    """Similarities of all tokens, and PSCA where groups or scores come from it.

    None for k-means, whose number of passes is not known before, and for groupings and scores that
    are not the library's.
    """
    grouping, score = params["grouping"], params["score"]
    if grouping not in ("psca", "random") or score not in ("abs_v", "cls_attention"):
        return None
    tokens, width = visual.tokens, visual.width
    similarities = tokens * tokens * width
    if grouping != "psca" and score != "abs_v":
        return similarities
    groups = params["num_groups"]
    wanted = max(1, budget // 4) if groups is None else int(groups)
    count = min(wanted, tokens, width)
    return similarities + psca.macs(tokens, width, count, str(params["solver"]))


@register(
    "prunesid", params=PARAMS, complete=_complete, needs=_needs, random=_random, macs=_macs,
    crops=Crops(),
)  # fmt: skip
def prunesid(
    record: VisionRecord,
    budget: Tensor,
    draws: Draws,
    *,
    preset: str,
    grouping: str,
    num_groups: int | None,
    score: str,
    center: str,
    solver: str,
    threshold: str,
    lam: float | None,
    cap: str | None,
    rounding: str | None,
    refill: str | None,
    cls_token: bool,
    order: str,
    layer: int | None,
) -> Kept:
    """Keep the budget's best and least redundant tokens of every group.

    preset      "paper", "release" or "matched": the defaults of what follows
    grouping    "psca", "kmeans", "random"
    num_groups  K, by default max(1, N // 4); at most min(T, D)
    score       "abs_v" or "cls_attention"
    center, solver  of PSCA, see `psca.token_components`
    threshold   of NMS: "scaled" (lambda * rho), "matched" (lets N tokens survive) or "off" (no NMS)
    lam         lambda, by default 18 N / T (N / 32 at T = 576)
    cap, rounding, refill  see `quotas.quotas`
    cls_token   whether the CLS token takes one of the N places
    order       "raster" or "groups" (by score inside each); a CLS token comes first
    layer       0-based block whose output, from `record.hidden`, feeds groups and |V| scores; the
                record's features feed the similarities and are what is sent on

    info: rho, tau, survivors (of NMS, tokens), suppressed (their complement, as a share of T),
    refilled (tokens kept though suppressed), num_groups (K used), requested_groups (K before it was
    clipped to min(T, D)), nonempty_groups, group ((B, T) int16, each token's group). An image that keeps all its tokens has tau = 1 and no
    suppression.
    """
    tokens = record.num_tokens
    source = record.features if layer is None else record.hidden[layer]
    whole = budget >= tokens
    requested = (budget // 4).clamp(min=1) if num_groups is None else budget * 0 + num_groups
    groups_used = requested.clamp(max=min(tokens, source.shape[2]))
    counts = tuple(groups_used.tolist())

    @functools.cache
    def components() -> Tensor:
        generators = [draws.generator(i, "solver") for i in range(len(record))]
        return psca.token_components(
            source, counts, center=center, solver=solver, generators=generators
        )

    group = GROUPINGS[grouping].run(GroupingContext(source, components, counts, draws))
    rank = rank_descending(SCORES[score].run(record, components))

    similarities = information.similarity(record.features)
    rho = information.redundancy(similarities)
    target = budget.clamp(max=tokens)
    reserved = int(cls_token)
    survived = torch.ones_like(rank, dtype=torch.bool)
    tau = torch.ones_like(rho)
    if threshold != "off":
        pairs = nms.conflicts(similarities, group, rank)
        if threshold == "matched":
            tau = nms.matched_threshold(pairs, target - reserved)
        else:
            tau = nms.scaled_threshold(rho, target, tokens, lam)
        tau = torch.where(whole, 1.0, tau)
        survived = nms.suppress(pairs, tau)

    sizes = quota.group_counts(group, torch.ones_like(survived), max(counts))
    if threshold == "matched":
        admitted = torch.zeros_like(sizes)
    else:
        admitted = quota.quotas(
            sizes,
            quota.group_counts(group, survived, max(counts)),
            target,
            reserved=reserved,
            cap=str(cap),
            rounding=str(rounding),
            refill=str(refill),
        )
    selection = quota.selection_rank(group, rank, survived, admitted)
    layout = None
    if order == "groups":
        layout = (2 * group + (~survived).long()) * tokens + rank
    kept_suppressed = (selection < (target - reserved)[:, None]) & ~survived
    info = {
        "rho": rho,
        "tau": tau,
        "survivors": survived.sum(dim=1),
        "suppressed": (~survived).double().mean(dim=1),
        "refilled": kept_suppressed.sum(dim=1),
        "num_groups": groups_used,
        "requested_groups": requested,
        "nonempty_groups": (sizes > 0).sum(dim=1),
        "group": group.to(torch.int16),
    }
    return keep(record, selection, budget, layout=layout, cls_token=cls_token, info=info)
