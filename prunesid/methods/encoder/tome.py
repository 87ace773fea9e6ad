"""ToMe (Bolya et al., ICLR 2023): each block of the encoder merges the most similar tokens.

Between attention and MLP, tokens are split alternately into sets A and B. Each token of A finds the
most similar one of B by the cosine of their keys (mean over heads). The r most similar tokens of A
merge into their partners, by a mean weighted by the number of patches that each token already
holds. CLS is in A and never merges. Attention adds the logarithm of these numbers to its logits, so
that a token counts as often as there are patches in it.

Papers on vision-language models do not state their schedule for ToMe. Here the T - N merges are
spread over the blocks that run until the features are read, as evenly as whole numbers allow, with
the larger numbers first. A block merges at most half of its patches. Exactly N patches are left:
for 64 of 576, each of LLaVA-1.5's 23 blocks merges 22 or 23.

Upstream leaves the tokens in the order of the last split: the unmerged tokens of A, then B. The
language model then loses the image's rows. `order="raster"` restores them by each token's first
patch. Ties go to the lower place.

In an image of several crops, tokens merge within each crop. If only patches that show the image can
be kept, padding patches are neither in A nor in B. They enter every block as without pruning, so a
budget of all other patches leaves each patch as it is in the unmodified model.
"""

from __future__ import annotations

from prunesid.core.costs import EncoderShape
from prunesid.core.parameters import Param
from prunesid.methods.encoder import register
from prunesid.methods.encoder.plan import Plan
from prunesid.methods.registry import Source

SPLIT, RASTER = "split", "raster"


def even_schedule(tokens: int, left: int, blocks: int) -> tuple[int, ...]:
    """(blocks) number of patches that each block merges, so that `left` of `tokens` patches remain.

    No block merges more than half of the patches that enter it. ValueError if that takes more
    blocks.
    """
    todo, kept = tokens - left, left
    found: list[int] = []
    for number in range(blocks, 0, -1):
        # From the last block backwards. A block merges at most half, so no more than it leaves.
        merges = min(todo // number, kept)
        found.insert(0, merges)
        todo, kept = todo - merges, kept + merges
    if todo:
        smallest = -(-tokens // 2**blocks)
        raise ValueError(
            f"budget {left}: a block merges at most half of its patches, so {blocks} blocks leave "
            f"at least {smallest} of {tokens}"
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
    """Keep exactly `budget` tokens; merged tokens have index -1.

    order         order of the output: "split" (unmerged tokens of A, then B) or "raster" (by first
                  patch)
    proportional  whether attention weighs a token by the number of patches in it

    info: selected, (B, T) bool, the first patch of each merged token.
    """
    merged = even_schedule(shape.tokens, budget, shape.read)
    return Plan(shape.side, merged, proportional, order == RASTER, shape.shown)
