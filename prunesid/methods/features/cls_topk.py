"""The patches that the CLS token attends to most (FasterVLM; HiRED on LLaVA-1.5)."""

from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor
from prunesid.core.needs import Needs
from prunesid.core.numerics import rank_descending
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.prunesid.scores.cls_attention import cls_attention
from prunesid.methods.registry import Source


@register(
    "cls_topk",
    needs=Needs(cls_attention=True),
    macs=0,
    crops=Crops(),
    source=Source(
        title="[CLS] Attention is All You Need for Training-Free Visual Token Pruning: "
        "Make VLM Inference Faster",
        venue="2024",
        repository="Theia-4869/FasterVLM",
    ),
)
def cls_topk(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Keep the top N by attention summed over heads, in raster order, ties to the lower index."""
    return keep(record, rank_descending(cls_attention(record)), budget)
