"""PruneSID (ICLR 2026): principal groups, NMS in each group, quotas (sections 3.2-3.3).

There are four presets. `paper` is the paper's text. `release` is the authors' LLaVA code, and
`release_qwen` their Qwen2-VL code, for encoders without CLS. `matched` replaces the paper's
threshold with the one that leaves as many survivors as there are places. All differences between
presets are parameters.

In `release_qwen` a budget N is for 576 tokens: an image of T tokens keeps max(round(T N / 576), 16)
of them, and an image with no more tokens than that stays whole.
"""

from __future__ import annotations

import functools

from prunesid.core.costs import Visual
from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import Needs
from prunesid.core.numerics import rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import BudgetRule, register
from prunesid.methods.features.prunesid import information, nms, psca
from prunesid.methods.features.prunesid import quotas as quota
from prunesid.methods.features.prunesid.groupings import GROUPINGS, GroupingContext
from prunesid.methods.features.prunesid.scores import SCORES
from prunesid.methods.registry import UPSTREAM, Resolved, Source, Upstream

ORDERS = ("raster", "groups", "groups_to_150")
# The most tokens that "groups_to_150" orders group by group.
UNSORTED = 150
PAPER: Resolved = {
    "score": "abs_v",
    "center": "tokens",
    "solver": "exact",
    "threshold": "scaled",
    "rho": "pairs",
    "min_lam": 0.0,
    "cap": "none",
    "rounding": "largest_remainder",
    "refill": "score",
    "cls_token": False,
    "order": "raster",
    "min_groups": 1,
    "reference_tokens": 0,
    "min_tokens": 1,
}
RELEASE: Resolved = {
    **PAPER,
    "score": "cls_attention",
    "center": "channels",
    "solver": "randomized",
    "cap": "release",
    "rounding": "cumulative",
    "refill": "caps",
    "cls_token": True,
    "order": "groups",
}
PRESETS: dict[str, Resolved] = {
    "paper": PAPER,
    "release": RELEASE,
    "release_qwen": {
        **RELEASE,
        "score": "abs_v",
        "rho": "triangle",
        "min_lam": 1.0,
        "cls_token": False,
        "order": "groups_to_150",
        "min_groups": 4,
        "reference_tokens": 576,
        "min_tokens": 16,
    },
    "matched": {**PAPER, "threshold": "matched"},
}
# Parameters without effect: the first with threshold="matched", the second without "scaled".
QUOTA_RULES = ("cap", "rounding", "refill")
LAMBDA_RULES = ("lam", "min_lam")

PARAMS = {
    "preset": Param("paper", str, (*PRESETS, UPSTREAM)),
    "grouping": Param("psca", str, GROUPINGS.names),
    "num_groups": Param(None, int, minimum=1),
    "min_groups": Param(None, int, minimum=1),
    "score": Param(None, str, SCORES.names),
    "center": Param(None, str, psca.CENTERS),
    "solver": Param(None, str, psca.SOLVERS),
    "threshold": Param(None, str, nms.THRESHOLDS),
    "rho": Param(None, str, information.RHOS),
    "lam": Param(None, float),
    "min_lam": Param(None, float, minimum=0.0),
    "cap": Param(None, str, quota.CAPS),
    "rounding": Param(None, str, quota.ROUNDINGS),
    "refill": Param(None, str, quota.REFILLS),
    "cls_token": Param(None, bool),
    "order": Param(None, str, ORDERS),
    "layer": Param(None, int, minimum=0),
    "reference_tokens": Param(None, int, minimum=0),
    "min_tokens": Param(None, int, minimum=1),
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
    if full["threshold"] != "scaled":
        for name in LAMBDA_RULES:
            if given[name] is not None:
                raise ValueError(f"{name} has no effect with threshold={full['threshold']!r}.")
            full[name] = None
    return full


def _meant(budget: int, patches: int, parameters: Resolved) -> int:
    """The number of tokens that a budget means for an image of so many patches."""
    reference = int(parameters["reference_tokens"] or 0)
    wanted = round(patches * budget / reference) if reference else budget
    return max(wanted, int(parameters["min_tokens"] or 1))


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
    """Multiply-adds of the similarities of all tokens, and of PSCA if groups or scores use it.

    None for k-means, whose number of passes is not known beforehand, and for groupings and scores
    from plug-ins.
    """
    grouping, score = params["grouping"], params["score"]
    if grouping not in ("psca", "random") or score not in ("abs_v", "cls_attention"):
        return None
    tokens, width = visual.tokens, visual.width
    similarities = tokens * tokens * width
    if grouping != "psca" and score != "abs_v":
        return similarities
    groups, least = params["num_groups"], int(params["min_groups"] or 1)
    wanted = max(least, budget // 4) if groups is None else int(groups)
    count = min(wanted, tokens, width)
    return similarities + psca.macs(tokens, width, count, str(params["solver"]))


@register(
    "prunesid",
    params=PARAMS,
    complete=_complete,
    needs=_needs,
    random=_random,
    macs=_macs,
    crops=Crops(),
    budget_rule=BudgetRule(_meant, then={"reference_tokens": 0, "min_tokens": 1}),
    source=Source(
        title="Prune Redundancy, Preserve Essence: Vision Token Compression in VLMs via "
        "Synergistic Importance-Diversity",
        venue="ICLR 2026",
        repository="ZhengyaoFang/PruneSID",
        commit="4ef17d96b390027f31243bc7e1d27bdee77792a5",
        golden=(
            "prunesid_llava",
            "prunesid_qwen",
        ),
        upstream={
            "preset": Upstream(
                "release",
                "the default is the method as the paper's text defines it",
            ),
        },
    ),
)
def prunesid(
    record: VisionRecord,
    budget: Tensor,
    draws: Draws,
    *,
    preset: str,
    grouping: str,
    num_groups: int | None,
    min_groups: int,
    score: str,
    center: str,
    solver: str,
    threshold: str,
    rho: str,
    lam: float | None,
    min_lam: float | None,
    cap: str | None,
    rounding: str | None,
    refill: str | None,
    cls_token: bool,
    order: str,
    layer: int | None,
    reference_tokens: int,
    min_tokens: int,
) -> Kept:
    """Keep the best and least redundant tokens of every group, N in total.

    preset      "paper", "release", "release_qwen" or "matched": the defaults of all that follows
    grouping    "psca", "kmeans" or "random"
    num_groups  K, by default N // 4, and at most min(T, D)
    min_groups  lower bound of K
    score       "abs_v" or "cls_attention"
    center      centering in PSCA, see `psca.token_components`
    solver      solver of PSCA, see `psca.token_components`
    threshold   threshold of NMS: "scaled" (lambda * rho), "matched" (N tokens survive) or "off" (no
                NMS)
    rho         the redundancy that the threshold is a multiple of, see `information.redundancy`
    lam         lambda, by default 18 N / T (N / 32 at T = 576)
    min_lam     lower bound of lambda
    cap, rounding, refill  see `quotas.quotas`
    cls_token   whether the CLS token takes one of the N places
    order       order of the output: "raster", "groups" (by score inside each group), or
                "groups_to_150" (as "groups" if at most 150 tokens are kept, else raster). A CLS
                token comes first
    layer       0-based block whose output, from `record.hidden`, feeds groups and |V| scores. The
                similarities and the output still use the record's features
    reference_tokens  number of tokens that the budget is for; images of another size keep their
                share. 0: every image keeps N
    min_tokens  the fewest tokens that an image keeps

    info: rho, tau, survivors (tokens that survive NMS), suppressed (the share of T that does not),
    refilled (tokens kept although suppressed), num_groups (K used), requested_groups (K before it
    was clipped to min(T, D)), nonempty_groups, group ((B, T) int16, each token's group). An image
    that keeps all its tokens has tau = 1 and no suppression.
    """
    tokens = record.num_tokens
    source = record.features if layer is None else record.hidden[layer]
    whole = budget >= tokens
    wanted = (budget // 4).clamp(min=min_groups)
    requested = wanted if num_groups is None else budget * 0 + num_groups
    groups_used = requested.clamp(max=min(tokens, source.shape[2]))
    counts = tuple(groups_used.tolist())

    @functools.cache
    def components() -> Tensor:
        images = range(len(record)) if solver == "randomized" else ()  # an image is hashed for it
        generators = [draws.generator(image, "solver") for image in images]
        return psca.token_components(
            source, counts, center=center, solver=solver, generators=generators
        )

    group = GROUPINGS[grouping].run(GroupingContext(source, components, counts, draws))
    rank = rank_descending(SCORES[score].run(record, components))

    rows = information.unit(record.features)
    redundancy = information.redundancy(rows, rho)
    target = budget.clamp(max=tokens)
    reserved = int(cls_token)
    survived = torch.ones_like(rank, dtype=torch.bool)
    tau = torch.ones_like(redundancy)
    if threshold != "off":
        pairs = nms.conflicts(rows, group, rank)
        if threshold == "matched":
            tau = nms.matched_threshold(pairs, target - reserved)
        else:
            tau = nms.scaled_threshold(redundancy, target, tokens, lam, min_lam or 0.0)
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
    if order != "raster":
        layout = (2 * group + (~survived).long()) * tokens + rank
        if order == "groups_to_150":
            sorted_ = (target > UNSORTED)[:, None]
            layout = torch.where(sorted_, torch.arange(tokens, device=rank.device), layout)
    kept_suppressed = (selection < (target - reserved)[:, None]) & ~survived
    info = {
        "rho": redundancy,
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
