"""CDPruner (Zhang et al., NeurIPS 2025): a subset that is diverse given the question.

Greedy MAP inference on the kernel r_i S_ij r_j, with S the cosine similarity of the projected
tokens and r the relevance of each to the question. Raster order.

The relevance is the record's, scaled as upstream does: min-max, with 1e-6 added to the numerator, so
that the least relevant token keeps some weight. By CLIP's text tower it is negated first, as upstream
does: patches that CLIP finds least like the text are the relevant ones. By the language model's
embeddings it is not, as in OpenVINO GenAI's deployed version (`prunesid.images.relevance` says what is compared).

Different from upstream: beyond the rank of the features (`prunesid.methods.features.greedy_map`) its recursion
takes roots of negative numbers and repeats tokens. The scaling is per image or crop, not over a
whole batch. Different from OpenVINO GenAI, which prunes all images of a prompt as one pool and adds
1e-6 to the denominator instead: each image has its own budget here.
"""

from __future__ import annotations

from torch import Tensor

from prunesid.core.crops import Crops
from prunesid.core.needs import QUESTION, Needs
from prunesid.core.numerics import on_grid
from prunesid.core.parameters import Param
from prunesid.core.record import CLIP, EMBEDDINGS, Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register
from prunesid.methods.features.greedy_map import macs, ranked
from prunesid.methods.registry import Resolved, Source

EPSILON = 1e-6


def _needs(params: Resolved) -> Needs:
    return Needs(projected=True, relevance=(str(params["relevance"]),))


@register(
    "cdpruner",
    params={"relevance": Param(QUESTION, str, (QUESTION, CLIP, EMBEDDINGS))},
    needs=_needs,
    crops=Crops(),
    macs=macs,
    source=Source(
        title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning in MLLMs",
        venue="NeurIPS 2025",
        repository="Theia-4869/CDPruner",
        commit="9541616c40fcd5625de1cdb8ea6c33c129eb7864",
        golden=("cdpruner",),
    ),
)
def cdpruner(record: VisionRecord, budget: Tensor, draws: Draws, *, relevance: str) -> Kept:
    """Greedy MAP of a DPP by incremental Cholesky; a smaller budget keeps a prefix.

    relevance  by what patches and question are compared: "clip", "embeddings", or "question", the
               first where the model comes with CLIP's text tower, else the second
    """
    if record.projected is None or record.relevance is None:
        raise ValueError("cdpruner needs a record with projected tokens and relevance")
    if relevance not in (QUESTION, record.relevance_by):
        raise ValueError(
            f"relevance={relevance!r}, but the record's is by {record.relevance_by!r}; give its "
            f"`relevance_by`, or relevance={QUESTION!r} for any"
        )
    weight = scaled_relevance(record.relevance, negated=record.relevance_by == CLIP)
    return keep(record, ranked(record.projected, weight, budget), budget)


def scaled_relevance(relevance: Tensor, *, negated: bool) -> Tensor:
    """Similarities to the question (B, T) as weights (B, T) float64, scaled to 0..1.

    An image whose tokens are all equally relevant has weight 1 throughout.
    """
    value = -relevance.double() if negated else relevance.double()
    low, high = value.aminmax(dim=1, keepdim=True)
    spread = high - low
    # A spread below epsilon would make that the larger term, and the weights anything.
    level = spread <= EPSILON
    weight = (value - low + EPSILON) / spread.masked_fill(level, 1)
    return on_grid(weight.masked_fill(level, 1))
