"""HiRED (Arif et al., AAAI 2025): top patches by CLS attention, crop by crop.

On one crop (LLaVA-1.5) it is `cls_topk`. For an image in several crops (LLaVA-NeXT) `crop_budgets`
shares the budget among them; each crop then keeps its own top patches, which may be none. Reproduced
although one might not expect it: every floor of that split loses up to a token, and a sub-crop's
region of the base crop is a run of the raster sequence, not its quadrant (`regions="quadrants"` for
that).

Upstream takes a rate, N / (C T) of the patches of C crops, and its floors are of floating-point
numbers, which may lie just below a whole one: of 2880 patches N = 63 gives 62, and a sub-crop may
lose one more token (`rounding="upstream"`). Of the 576 patches of one crop every N is kept.

Patches of the padding are chosen like others and then dropped (`crops`).

Different from upstream: at least one token of an image is kept; an image whose budget is that of all
its tokens keeps them; ties go to the lower index.
"""

from __future__ import annotations

import torch
from torch import Tensor

from prunesid.core.crops import AFTER, Crops
from prunesid.core.needs import Needs
from prunesid.core.numerics import PROBABILITY_GRID, on_grid, rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.registry import unknown
from prunesid.core.seeding import Draws
from prunesid.methods.features import Split, register
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.registry import Resolved, Source, Upstream

ROUNDINGS = ("exact", "upstream")
REGIONS = ("runs", "quadrants")


def _check_alpha(alpha: float) -> None:
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha is a share in [0, 1], not {alpha}")


def _checked(params: Resolved) -> Resolved:
    _check_alpha(float(params["alpha"] or 0))
    return params


def kept_count(budget: int, tokens: int, rounding: str = "exact") -> int:
    """How many of `tokens` a budget keeps: all of it, or as floating point has int(tokens * rate)."""
    if rounding == "exact" or budget >= tokens:
        return min(budget, tokens)
    return max(1, int(tokens * (budget / tokens)))


def _share(
    base: VisionRecord,
    budget: int,
    crops: tuple[int, int],
    *,
    rounding: str,
    alpha: float,
    regions: str,
) -> list[int]:
    """`crop_budgets` of one image."""
    if crops == (0, 0):
        return [kept_count(budget, base.num_tokens, rounding)]
    if base.first_cls_attention is None:
        raise ValueError(
            "hired needs first_cls_attention of the base crop, which this record lacks"
        )
    shares = crop_budgets(
        base.first_cls_attention, budget, crops, alpha=alpha, regions=regions, grid=base.grid,
        rounding=rounding,
    )  # fmt: skip
    return shares[0].tolist()


@register(
    "hired",
    params={
        "rounding": Param("exact", str, ROUNDINGS),
        "alpha": Param(0.5, float, minimum=0.0),
        "regions": Param("runs", str, REGIONS),
    },
    complete=_checked,
    needs=Needs(cls_attention=True),
    crops=Crops(unpad=AFTER),
    macs=0,
    # The rate is that of the image: what its crops got is kept.
    split=Split(_share, Needs(first_cls_attention=True), then={"rounding": "exact"}),
    source=Source(
        title="HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution Vision-Language Models",
        venue="AAAI 2025",
        repository="hasanar1f/HiRED",
        commit="502d6dd79a03e87cc808cedba8b8a951d93cb62b",
        golden=("hired",),
        upstream={
            "rounding": Upstream(
                "upstream",
                "floors of floating-point products lose a token of some budgets by accident",
            ),
        },
    ),
)
def hired(
    record: VisionRecord, budget: Tensor, draws: Draws, *, rounding: str, alpha: float, regions: str
) -> Kept:
    """Top patches by attention summed over heads, in raster order; each image is one crop.

    rounding  "exact": whole numbers, "upstream": floating point, as the authors' code has it
    alpha, regions  of the split among the crops of an image, see `crop_budgets`: the base crop's
              share, and whether the parts of it that sub-crops show are "runs" of the raster
              sequence (upstream) or "quadrants"; without effect on an image of one crop
    """
    counts = [kept_count(each, record.num_tokens, rounding) for each in budget.tolist()]
    return keep(record, rank_descending(cls_attention(record)), budget.new_tensor(counts))


def crop_budgets(
    attention: Tensor,
    budget: int,
    crops: tuple[int, int],
    *,
    alpha: float = 0.5,
    regions: str = "runs",
    grid: tuple[int, int] | None = None,
    rounding: str = "exact",
) -> Tensor:
    """The tokens of each crop of an image that comes as a base crop and `crops` sub-crops.

    attention  (B, T), CLS to patches of the base crop in the tower's *first* block, heads summed (or
               their mean: only its order counts)
    budget     tokens over all 1 + rows * columns crops of T tokens
    crops      (rows, columns) of the sub-crops
    alpha      share of the base crop, in [0, 1]. The rest goes to the sub-crops in proportion to
               how many of the top int(T * (1 - alpha)) patches lie in their region of the base crop
    regions    "runs": rows * columns runs of the raster sequence (upstream), equal up to a token;
               "quadrants": the rectangles of `grid` (rows, columns of the patches) that they show
    rounding   of the budget, see `kept_count`, and of the sub-crops' shares: "exact" or, in float32,
               "upstream"
    Returns (B, 1 + rows * columns) int64, the base crop first, then the sub-crops in raster order;
    each is at most T. Floors: the sum may be below the budget. ValueError on unknown names, an
    alpha out of range, a budget below 1, or a grid that is missing or does not hold T.
    """
    for name, value, choices in (("regions", regions, REGIONS), ("rounding", rounding, ROUNDINGS)):
        if value not in choices:
            raise ValueError(unknown(name, value, choices))
    _check_alpha(alpha)
    if budget < 1:
        raise ValueError(f"budget must be at least 1 token, not {budget}")
    tokens, number = attention.shape[1], crops[0] * crops[1]
    total = kept_count(budget, (1 + number) * tokens, rounding)
    base = min(int(total * alpha), tokens)
    member = _regions(tokens, crops, grid, regions)
    top = rank_descending(on_grid(attention.double(), PROBABILITY_GRID)) < int(tokens * (1 - alpha))
    votes = attention.new_zeros((len(attention), number), dtype=torch.long)
    votes.index_add_(1, member.to(attention.device), top.long())
    voters = votes.sum(dim=1, keepdim=True).clamp(min=1)
    if rounding == "upstream":
        shares = (votes / voters * (total - base)).long()
    else:
        # In integers: a share in floating point may lie just below the whole number that it is.
        shares = (total - base) * votes // voters
    return torch.cat([shares.new_full((len(shares), 1), base), shares.clamp(max=tokens)], dim=1)


def _regions(
    tokens: int, crops: tuple[int, int], grid: tuple[int, int] | None, regions: str
) -> Tensor:
    """(T,) the sub-crop that each patch of the base crop belongs to."""
    place = torch.arange(tokens)
    if regions == "runs":
        return place * (crops[0] * crops[1]) // tokens
    if grid is None or grid[0] * grid[1] != tokens:
        raise ValueError(f"regions='quadrants' needs the grid of the {tokens} patches, not {grid}")
    row, column = place // grid[1], place % grid[1]
    return row * crops[0] // grid[0] * crops[1] + column * crops[1] // grid[1]
