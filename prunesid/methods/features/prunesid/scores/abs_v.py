"""Score by a token's contribution to its principal direction (section 3.3)."""

from collections.abc import Callable

from prunesid.core.delayed import Tensor
from prunesid.core.record import VisionRecord
from prunesid.methods.features.prunesid.psca import assign
from prunesid.methods.features.prunesid.scores import register


@register("abs_v")
def abs_v(record: VisionRecord, components: Callable[[], Tensor]) -> Tensor:
    """max_j |V_ij|, which under the PSCA grouping is s_i = |V_i,g(i)|."""
    return assign(components())[1]
