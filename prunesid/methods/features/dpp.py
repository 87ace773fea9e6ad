"""A determinantal point process on all tokens: CDPruner (Zhang et al., NeurIPS 2025) without its question.

Greedy MAP inference on the cosine similarity of the projected tokens: a diverse subset, whatever is
asked. Raster order. It is what is left of CDPruner's kernel where every token is equally relevant;
its authors do not propose it. The first token is the first patch, since all gains are equal then.
"""

from __future__ import annotations

from torch import Tensor

from prunesid.core.crops import Crops
from prunesid.core.needs import Needs
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.greedy_map import macs, ranked


@register("dpp", needs=Needs(projected=True), crops=Crops(), macs=macs)
def dpp(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Greedy MAP of a DPP by incremental Cholesky; a smaller budget keeps a prefix."""
    if record.projected is None:
        raise ValueError("dpp needs a record with projected tokens")
    return keep(record, ranked(record.projected, None, budget), budget)
