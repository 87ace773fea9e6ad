"""ToMe (Bolya et al., ICLR 2023): each block of the encoder merges the most similar tokens.

Between attention and MLP, tokens are split alternately into A and B, and each of A finds the most
similar one of B by the cosine of its keys (mean over heads). The r most similar of A go into theirs:
a mean weighted by the patches that each token already holds. CLS stands in A and is never merged.
Attention adds the logarithm of these sizes to its logits, so that a token counts as often as the
patches in it.

The papers on vision-language models do not state their schedule. Here the T - N merges are spread
over the blocks that run until the features are read, as evenly as whole numbers allow, the earlier
blocks first; a block merges half of its patches at the most. Of 576 patches exactly N are left: of
LLaVA-1.5's 23 blocks each merges 22 or 23 for 64 tokens.

Upstream leaves the tokens as its last split does: those of A that were not merged, then B. The image's
rows are then lost to the language model; `order="raster"` restores them by each token's first patch.
Ties go to the lower place.

An image in several crops is merged within each of them. Where only the patches that show the image
can be kept, those of the padding are split into neither A nor B: they enter every block as they would
without pruning, so that a budget of all other patches leaves each as the unmodified model has it.
"""

from __future__ import annotations

from prunesid.core.costs import EncoderShape
from prunesid.core.parameters import Param
from prunesid.core.parametric import Source
from prunesid.methods.encoder import register
from prunesid.methods.encoder.plan import Plan

SPLIT, RASTER = "split", "raster"


def even_schedule(tokens: int, left: int, blocks: int) -> tuple[int, ...]:
    """(blocks) merges that leave `left` of `tokens` patches, none more than half of what enters.

    ValueError where so few blocks cannot halve so often.
    """
    todo, kept = tokens - left, left
    found: list[int] = []
    for number in range(blocks, 0, -1):
        # From the last block backwards: at most half merge where no more do than remain.
        merges = min(todo // number, kept)
        found.insert(0, merges)
        todo, kept = todo - merges, kept + merges
    if todo:
        smallest = -(-tokens // 2**blocks)
        raise ValueError(
            f"budget {left}: a block merges half of its patches at the most, so that {blocks} blocks "
            f"leave at least {smallest} of {tokens}"
        )
    return tuple(found)


@register(
    "tome",
    params={"order": Param(SPLIT, str, (SPLIT, RASTER)), "proportional": Param(True, bool)},
    source=Source(
        title="Token Merging: Your ViT But Faster",
        venue="ICLR 2023",
        repository="facebookresearch/ToMe",
        commit="af95e4b1befa172dadccd8c81e223b10090f9579",
        golden=("tome",),
    ),
)
def tome(shape: EncoderShape, budget: int, *, order: str, proportional: bool) -> Plan:
    """Exactly `budget` tokens; the index is -1 for merged ones.

    info: selected, (B, T) bool, the first patch of each merged token.

    order         of the output: "split" (unmerged tokens of A, then B) or "raster" (by first patch)
    proportional  whether attention weighs a token by the patches in it
    """
    merged = even_schedule(shape.tokens, budget, shape.read)
    return Plan(shape.side, merged, proportional, order == RASTER, shape.shown)
