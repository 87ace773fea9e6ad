"""Grouping of each token with the principal direction it contributes most to (equation 3)."""

from prunesid.core.delayed import Tensor
from prunesid.methods.features.prunesid.groupings import GroupingContext, register
from prunesid.methods.features.prunesid.psca import assign


@register("psca")
def psca(context: GroupingContext) -> Tensor:
    """The groups by principal semantic component analysis."""
    return assign(context.components())[0]
