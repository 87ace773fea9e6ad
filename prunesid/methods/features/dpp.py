"""DPP on all tokens: CDPruner (Zhang et al., NeurIPS 2025) without the question.

Greedy MAP inference of a determinantal point process, with the cosine similarity of the projected
tokens as its kernel, gives a diverse subset whatever the question. The output is in raster order.
CDPruner has this kernel if all tokens are equally relevant; its authors do not propose it. The
first pick is the first patch, since all gains are equal at the start.
"""

from __future__ import annotations

from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor
from prunesid.core.needs import Needs
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.greedy_map import macs, ranked


@register("dpp", needs=Needs(projected=True), crops=Crops(), macs=macs)
def dpp(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Keep tokens by greedy MAP inference of a DPP; a smaller budget keeps a prefix."""
    if record.projected is None:
        raise ValueError("dpp needs a record with projected tokens")
    return keep(record, ranked(record.projected, None, budget), budget)
