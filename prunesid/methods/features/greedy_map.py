"""Greedy MAP inference of a determinantal point process (DPP), shared by `dpp` and `cdpruner`.

The kernel is w_i S_ij w_j, where S is the cosine similarity of the projected tokens and w_i the
weight of token i. Every step takes the token that adds most to the determinant and adds one row to
an incremental Cholesky factor (Chen et al., NeurIPS 2018). So a smaller budget keeps a prefix.

When no token adds to the determinant any more (beyond the rank of the features), the other tokens
follow by descending weight. Gains are float64 on a grid; ties go to the lower index.
"""

from __future__ import annotations

from collections.abc import Callable

from prunesid.core.costs import Visual
from prunesid.core.delayed import Array, Tensor, np, torch
from prunesid.core.numerics import (
    GRID,
    float32_first,
    gram,
    in_numpy,
    on_grid,
    one_thread,
    rank_of_picks,
)
from prunesid.methods.features.prunesid.information import cosine, inverse_lengths
from prunesid.methods.features.ragged import largest_partial
from prunesid.methods.registry import Resolved

# If at most one in so many tokens is picked, similarities to the picks are faster than all of them.
FEW = 5
# Channels that suffice to guess most of the picks.
CHANNELS = 1024
# One extra token is guessed for so many picks, to make up for wrong guesses.
SPARE = 8


def ranked(projected: Tensor, weight: Tensor | None, budget: Tensor) -> Tensor:
    """(B, T) place of each token in the order of picks; after the picks, the rest by raster order.

    projected  (B, T, E)
    weight     (B, T) float64, 0 or more; None: all weights are 1
    budget     (B,) int64; the largest one below T is the number of picks
    """
    tokens = projected.shape[1]
    steps = largest_partial(budget, tokens)
    # Equal weights leave many gains almost equal, and no guess finds the largest.
    few = weight is not None and float32_first(projected) and FEW * steps <= tokens
    if weight is None:
        weight = torch.ones(projected.shape[:2], dtype=torch.float64, device=projected.device)
    if not in_numpy(projected):
        picks = _batch_picks(cosine(projected), weight, steps)
    else:
        choose = _picks_by_rows if few else _picks_by_gram
        images = zip(projected.split(1), weight, strict=True)
        picks = torch.stack([choose(*image, steps) for image in images])
    return rank_of_picks(picks, tokens)


def _picks_by_gram(projected: Tensor, weight: Tensor, steps: int) -> Tensor:
    """(steps,) tokens of one image in the order of their selection, from (1, T, E) and (T,)."""
    similarities = cosine(projected)[0].numpy()
    return _picks(similarities.diagonal(), similarities.__getitem__, weight.numpy(), steps)


def _picks_by_rows(projected: Tensor, weight: Tensor, steps: int) -> Tensor:
    """The same as `_picks_by_gram`, from the similarities to the picks alone.

    The picks are first guessed in float32 from some of the channels. One product then gives the
    similarities to almost all picks. Similarities to a pick that was not guessed are computed when
    it is picked.
    """
    inverse = inverse_lengths(projected)[0]
    own = (inverse > 0).double()
    tokens = projected[0].double()
    rows: dict[int, Array] = {}

    def add(picks: Tensor) -> None:
        products = tokens[picks] @ tokens.T
        similarities = products.mul_(inverse[picks, None]).mul_(inverse)
        rows.update(zip(picks.tolist(), similarities.numpy(), strict=True))

    def row(pick: int) -> Array:
        if pick not in rows:
            add(torch.tensor([pick]))
        return rows[pick]

    add(_guess(projected[0], own, weight, steps + steps // SPARE))
    return _picks(own.numpy(), row, weight.numpy(), steps)


def _guess(tokens: Tensor, own: Tensor, weight: Tensor, steps: int) -> Tensor:
    """(steps,) likely picks of `tokens` (T, E), from every nth channel."""
    some = tokens[:, :: max(tokens.shape[1] // CHANNELS, 1)].double()
    rough = gram(torch.nn.functional.normalize(some, dim=1).float()[None])[0].numpy()
    return _picks(own.float().numpy(), rough.__getitem__, weight.float().numpy(), steps)


def _picks(own: Array, row: Callable[[int], Array], weight: Array, steps: int) -> Tensor:
    """(steps,) tokens of one image in the order of their selection.

    own     (T,) similarity of each token to itself
    row     gives the similarities (T,) of all tokens to one
    weight  (T,)
    """
    rows = np.empty((steps, len(weight)), weight.dtype)  # of the Cholesky factor
    gain = weight**2 * own  # minus infinity for the tokens taken
    picks: list[int] = []
    with one_thread():
        for place in range(steps):
            steps_of_grid = np.rint(gain / GRID)
            pick = int(steps_of_grid.argmax())
            if steps_of_grid[pick] <= 0:
                break
            picks.append(pick)
            known = rows[:place]
            kernel = row(pick) * weight * weight[pick]
            rows[place] = (kernel - known[:, pick] @ known) / np.sqrt(gain[pick])
            gain = gain - rows[place] ** 2
            gain[pick] = -np.inf
    others = torch.from_numpy(weight).argsort(descending=True, stable=True)
    others = others[torch.from_numpy(gain)[others] > -torch.inf]
    return torch.cat([torch.tensor(picks, dtype=torch.int64), others])[:steps]


def _batch_picks(similarities: Tensor, weight: Tensor, steps: int) -> Tensor:
    """`_picks` (B, steps) of many images, from (B, T, T) and (B, T); never waits for the device."""
    batch, tokens = weight.shape
    picks = torch.empty((batch, steps), dtype=torch.int64, device=weight.device)
    rows = similarities.new_zeros((batch, steps, tokens))  # of the Cholesky factor
    gain = weight**2 * similarities.diagonal(dim1=1, dim2=2)
    taken = torch.zeros_like(gain, dtype=torch.bool)
    for place in range(steps):
        free = on_grid(gain).masked_fill(taken, -torch.inf)
        spent = free.amax(dim=1, keepdim=True) <= 0
        left = torch.where(spent, weight, free).masked_fill(taken, -torch.inf)
        pick = left.argmax(dim=1, keepdim=True)
        picks[:, place] = pick[:, 0]
        taken.scatter_(1, pick, True)
        everyone = pick[:, :, None].expand(batch, tokens, 1)
        kernel = similarities.gather(2, everyone)[:, :, 0] * weight * weight.gather(1, pick)
        known = rows[:, :place]
        explained = known.gather(2, everyone[:, :place]).transpose(1, 2) @ known
        pivot = gain.gather(1, pick).masked_fill(spent, 1).sqrt()
        row = ((kernel - explained[:, 0]) / pivot).masked_fill(spent, 0)
        rows[:, place] = row
        gain = gain - row**2
    return picks


def macs(visual: Visual, budget: int, params: Resolved) -> int:
    """Multiply-adds of the similarities of all projected tokens, and of the Cholesky factor."""
    factor = budget * (budget - 1) // 2 + budget
    return visual.tokens**2 * visual.projected + visual.tokens * factor
