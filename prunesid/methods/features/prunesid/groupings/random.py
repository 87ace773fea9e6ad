"""Grouping at random: tokens shuffled and partitioned evenly (the random baseline of table 5)."""

from prunesid.core.delayed import Tensor, torch
from prunesid.methods.features.prunesid.groupings import GroupingContext, register


@register("random", random=True)
def random(context: GroupingContext) -> Tensor:
    """K random groups whose sizes differ by at most one token.

    Only the groups are random. A token's score stays the one that `score` names, by default PSCA's.
    """
    tokens = context.features.shape[1]
    rows = []
    for image, count in enumerate(context.num_groups):
        generator = context.draws.generator(image, "grouping")
        rows.append(torch.randperm(tokens, generator=generator) % count)
    return torch.stack(rows).to(context.features.device)
