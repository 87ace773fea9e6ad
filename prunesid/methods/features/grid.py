"""A uniform grid of patches, the baseline that uses position alone."""

from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import Kept, VisionRecord, keep
from prunesid.core.seeding import Draws
from prunesid.methods.features import register


def grid_index(rows: int, columns: int, budget: int) -> list[int]:
    """`budget` <= rows * columns distinct raster indices, spread evenly in both directions.

    The tokens lie on lines whose numbers of tokens differ by at most one. The lines are about as
    far apart as the tokens on a line: 64 of 24 x 24 patches are 8 x 8. Any budget is met exactly.
    """
    possible = range(-(-budget // columns), min(rows, budget) + 1)
    lines = min(possible, key=lambda n: (abs(rows / n - columns * n / budget), n))
    index = []
    for line in range(lines):
        row = (2 * line + 1) * rows // (2 * lines)
        count = (line + 1) * budget // lines - line * budget // lines
        index += [row * columns + (2 * i + 1) * columns // (2 * count) for i in range(count)]
    return index


@register("grid", macs=0)
def grid(record: VisionRecord, budget: Tensor, draws: Draws) -> Kept:
    """Keep patches spread evenly over the record's grid; without one, T is a single row."""
    tokens = record.num_tokens
    rows, columns = record.grid or (1, tokens)
    rank = torch.empty((len(record), tokens), dtype=torch.long)
    for image, count in enumerate(budget.clamp(max=tokens).tolist()):
        chosen = torch.zeros(tokens, dtype=torch.bool)
        chosen[grid_index(rows, columns, count)] = True
        rank[image] = (~chosen).long().argsort(stable=True).argsort()
    return keep(record, rank.to(budget.device), budget)
