"""Tokens shuffled and uniformly partitioned (the random baseline of table 5)."""

import torch
from torch import Tensor

from prunesid.methods.features.prunesid.groupings import GroupingContext, register


@register("random", random=True)
def random(context: GroupingContext) -> Tensor:
    """K groups whose sizes differ by at most one token.

    Only the groups are random: a token's score stays what `score` says, by default its PSCA score.
    """
    tokens = context.features.shape[1]
    rows = []
    for image, count in enumerate(context.num_groups):
        generator = context.draws.generator(image, "grouping")
        rows.append(torch.randperm(tokens, generator=generator) % count)
    return torch.stack(rows).to(context.features.device)
