"""Tokens drawn at random, the baseline that any other method has to beat."""

from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register


@register("random", random=True, macs=0)
def random(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Keep tokens drawn uniformly without replacement, in raster order.

    A smaller budget keeps a subset of a larger one.
    """
    ranks = [
        torch.randperm(record.num_tokens, generator=draws.generator(image, "random"))
        for image in range(len(record))
    ]
    return keep(record, torch.stack(ranks).to(budget.device), budget)
