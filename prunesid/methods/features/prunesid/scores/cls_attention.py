"""Score by attention from the CLS token, as in the released code."""

from collections.abc import Callable

from prunesid.core.delayed import Tensor
from prunesid.core.numerics import PROBABILITY_GRID, on_grid
from prunesid.core.record import VisionRecord
from prunesid.methods.features.prunesid.scores import register


@register("cls_attention", cls_attention=True)
def cls_attention(record: VisionRecord, components: Callable[[], Tensor] | None = None) -> Tensor:
    """CLS-to-patch attention in the block that made the features, summed over heads."""
    if record.cls_attention is None:
        raise ValueError("the score 'cls_attention' needs a record with cls_attention")
    return on_grid(record.cls_attention.double(), PROBABILITY_GRID).sum(dim=1)
