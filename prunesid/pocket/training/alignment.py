"""The loss that brings projected patches near the words that name them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from prunesid.pocket.training.labels import KINDS
from prunesid.pocket.vocabulary import (
    BACKGROUNDS,
    BINS,
    CHARACTERS,
    COLOR_NAMES,
    COLUMNS,
    ORDINALS,
    RANKS,
    ROWS,
    ids,
)

_KIND_WORDS = ids([k.removeprefix("arrow_") for k in KINDS[1:]])
_GROUPS = {
    "kind": _KIND_WORDS, "color": ids(COLOR_NAMES), "character": ids(CHARACTERS),
    "style": ids(BACKGROUNDS), "row": ids(ROWS), "column": ids(COLUMNS),
    "part": ids([*ORDINALS, *RANKS["bars"], *RANKS["pie"]]),
    "cell_row": ids(("top", "middle", "bottom")), "cell_column": ids(("left", "center", "right")),
}  # fmt: skip
_PARTS = len(_GROUPS["part"])
OBJECT = "object"
PLACE_GROUPS = ("row", "column")
GROUPS = (OBJECT, *_GROUPS)
LOOKS = tuple(name for name in GROUPS if name not in PLACE_GROUPS)


def alignment_loss(
    tokens: Tensor,
    embeddings: Tensor,
    batch: dict[str, Tensor],
    groups: Sequence[str] = GROUPS,
) -> Tensor:
    """The loss of projected patches (B, P, D) far from the embeddings of words that name them.

    Row and column are those of the center of the patch's object, so that any patch of an object
    tells where it is; a background patch names its own. The word `object` belongs to the patches
    that share an object's center, by their shares, so that objects are counted and not patches.

    groups  of words that are asked for
    """
    role = batch["role"] - 1
    cell = role - _PARTS
    backdrop = batch["kind"] == 0
    place = (batch["center"] * BINS).long().clamp(max=BINS - 1)
    target = {
        "kind": batch["kind"] - 1,
        "color": batch["color"] - 1,
        "character": batch["character"] - 1,
        "style": torch.where(backdrop, batch["style"][:, None], -1),
        "row": place[..., 1],
        "column": place[..., 0],
        "part": torch.where(role < _PARTS, role, -1),
        "cell_row": torch.where(cell < 0, -1, cell // 3),
        "cell_column": torch.where(cell < 0, -1, cell % 3),
    }
    total = torch.zeros(())
    for name in groups:
        if name == OBJECT:
            center = (4 * tokens @ embeddings[ids([OBJECT])[0]]).flatten()
            total = total + F.binary_cross_entropy_with_logits(
                center,
                batch["holds_center"].flatten(),
                weight=(batch["weight"] * ~backdrop).flatten(),
                reduction="sum",
            ) / (batch["weight"] * ~backdrop).sum().clamp_min(1e-6)
            continue
        wanted, words = target[name], _GROUPS[name]
        weight = batch["weight"] * (wanted >= 0)
        logits = 4 * tokens @ embeddings[words].T
        loss = F.cross_entropy(
            logits.flatten(0, 1), wanted.flatten(), ignore_index=-1, reduction="none"
        )
        total = total + (loss * weight.flatten()).sum() / weight.sum().clamp_min(1e-6)
    return total / len(groups)
