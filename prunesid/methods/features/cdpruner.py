"""CDPruner (Zhang et al., NeurIPS 2025): a subset that is diverse given the question.

Greedy MAP inference of a DPP with the kernel r_i S_ij r_j, where S is the cosine similarity of the
projected tokens and r_i the relevance of token i to the question. The output is in raster order.

The record's relevance is scaled as upstream does: min-max, with 1e-6 added to the numerator, so
that the least relevant token keeps some weight. Relevance by CLIP's text tower is negated first, as
upstream: the patches least like the text, by CLIP, count as relevant. Relevance by the language
model's embeddings is not negated, as in OpenVINO GenAI's deployed version.
`prunesid.images.relevance` describes both.

Differences from upstream: beyond the rank of the features (`prunesid.methods.features.greedy_map`)
upstream's recursion takes roots of negative numbers and repeats tokens. The scaling here is per
image or crop, not over a whole batch. Differences from OpenVINO GenAI: it prunes all images of a
prompt as one pool and adds 1e-6 to the denominator instead. Here each image has its own budget.
"""

from __future__ import annotations

from prunesid.core.crops import Crops
from prunesid.core.delayed import Tensor
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
        title="Beyond Attention or Similarity: Maximizing Conditional Diversity for Token Pruning "
        "in MLLMs",
        venue="NeurIPS 2025",
        repository="Theia-4869/CDPruner",
        commit="9541616c40fcd5625de1cdb8ea6c33c129eb7864",
        golden=("cdpruner",),
    ),
)
def cdpruner(record: VisionRecord, budget: Tensor, draws: Draws, *, relevance: str) -> Kept:
    """Keep tokens by greedy MAP inference of a DPP; a smaller budget keeps a prefix.

    relevance  encoder that compares patches and question: "clip", "embeddings", or "question",
               which is "clip" if the model comes with CLIP's text tower, else "embeddings"
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

    If all tokens of an image are equally relevant, all weights are 1.
    """
    value = -relevance.double() if negated else relevance.double()
    low, high = value.aminmax(dim=1, keepdim=True)
    spread = high - low
    # With a spread below epsilon, epsilon would dominate, and the weights would be arbitrary.
    level = spread <= EPSILON
    weight = (value - low + EPSILON) / spread.masked_fill(level, 1)
    return on_grid(weight.masked_fill(level, 1))
