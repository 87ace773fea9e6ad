"""HiRED (Arif et al., AAAI 2025): top patches by CLS attention, crop by crop.

On one crop (LLaVA-1.5) it equals `cls_topk`. For an image in several crops (LLaVA-NeXT),
`crop_budgets` shares the budget among them. Each crop then keeps its own top patches, possibly
none.

Unexpected details of upstream that are reproduced: Every floor in that split loses up to a token. A
sub-crop's region of the base crop is a run of the raster sequence, not its quadrant
(`regions="quadrants"` takes the quadrant).

Upstream takes a rate, N / (C T) of the patches of C crops. It takes floors of floating-point
numbers, which may lie just below a whole number: N = 63 of 2880 patches gives 62, and a sub-crop
may lose one more token (`rounding="upstream"`). On one crop of 576 patches every N is met.

Patches of the padding are chosen like others and then dropped (`crops`).

Differences from upstream: an image keeps at least one token. An image whose budget covers all its
tokens keeps them. Ties go to the lower index.
"""

from __future__ import annotations

from typing import Any

from prunesid.core.crops import AFTER, Crops
from prunesid.core.delayed import Tensor, torch
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
    """The number of tokens that a budget keeps of `tokens`.

    rounding  "exact": the budget. "upstream": int(tokens * rate) in floating point, at least 1
    """
    if rounding == "exact" or budget >= tokens:
        return min(budget, tokens)
    return max(1, int(tokens * (budget / tokens)))


def _share(
    base: VisionRecord, budget: int, crops: tuple[int, int], *, rounding: str, **rules: Any
) -> list[int]:
    """`crop_budgets` of one image."""
    if crops == (0, 0):
        return [kept_count(budget, base.num_tokens, rounding)]
    if base.first_cls_attention is None:
        raise ValueError(
            "hired needs first_cls_attention of the base crop, which this record lacks"
        )
    rules |= {"rounding": rounding, "grid": base.grid}
    return crop_budgets(base.first_cls_attention, budget, crops, **rules)[0].tolist()


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
    # The rate applies to the image; each crop keeps exactly its share.
    split=Split(_share, Needs(first_cls_attention=True), then={"rounding": "exact"}),
    source=Source(
        title="HiRED: Attention-Guided Token Dropping for Efficient Inference of High-Resolution "
        "Vision-Language Models",
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
    """Keep the top patches by attention summed over heads, in raster order; each image is one crop.

    rounding  "exact" (whole numbers) or "upstream" (floating point, as in the authors' code)
    alpha     share of the base crop, see `crop_budgets`
    regions   shape of the sub-crops' regions in the base crop, see `crop_budgets`: "runs" of the
              raster sequence (upstream) or "quadrants"

    alpha and regions have no effect on an image of one crop.
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

    attention  (B, T) from CLS to patches of the base crop in the tower's *first* block, summed or
               averaged over heads (only the order counts)
    budget     tokens over all 1 + rows * columns crops of T tokens
    crops      (rows, columns) of the sub-crops
    alpha      share of the base crop, in [0, 1]. The rest goes to the sub-crops. A sub-crop's share
               is in proportion to how many of the top int(T * (1 - alpha)) patches of the base crop
               lie in its region
    regions    "runs": rows * columns runs of the raster sequence (upstream), equal to within one
               token.
               "quadrants": the rectangles that the sub-crops show
    grid       (rows, columns) of the patches, for "quadrants"
    rounding   rounding of the budget (`kept_count`) and of the sub-crops' shares: "exact", or
               "upstream" in float32

    Returns (B, 1 + rows * columns) int64, the base crop first, then the sub-crops in raster order;
    each is at most T. Because of floors the sum may be below the budget. ValueError on unknown
    names, an alpha out of range, a budget below 1, or a grid that is missing or does not hold T.
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
        # In integers, since a share in floating point may lie just below its whole number.
        shares = (total - base) * votes // voters
    return torch.cat([shares.new_full((len(shares), 1), base), shares.clamp(max=tokens)], dim=1)


def _regions(
    tokens: int, crops: tuple[int, int], grid: tuple[int, int] | None, regions: str
) -> Tensor:
    """(T,) number of the sub-crop whose region holds each patch of the base crop."""
    place = torch.arange(tokens)
    if regions == "runs":
        return place * (crops[0] * crops[1]) // tokens
    if grid is None or grid[0] * grid[1] != tokens:
        raise ValueError(f"regions='quadrants' needs the grid of the {tokens} patches, not {grid}")
    row, column = place // grid[1], place % grid[1]
    return row * crops[0] // grid[0] * crops[1] + column * crops[1] // grid[1]
