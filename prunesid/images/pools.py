"""Choices among tokens of several crops at once (`prunesid.core.crops`).

A pool holds the candidates of one choice: tokens of several crops become one sequence. The kept
tokens become rows again, each with its place among the tokens of its image.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from prunesid.core.crops import BEFORE, PACKED, Crops
from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import MEMBERS, NEWLINE, PLACE, Kept, VisionRecord
from prunesid.images.medium import Medium
from prunesid.methods.features import CHUNK_ELEMENTS

Grid = tuple[int, int]


@dataclass(frozen=True, eq=False)
class Pool:
    """T tokens of an image.

    rows   (T,) int64 number of each token's crop among all R
    index  (T,) int64 its patch, or the index of a newline embedding (`record.NEWLINE`)
    grid   rows and columns, if the tokens fill a rectangle
    """

    rows: Tensor
    index: Tensor
    grid: Grid | None = None

    def __len__(self) -> int:
        return len(self.rows)


def image_pool(medium: Medium, grid: Grid, crops: Crops) -> Pool:
    """All tokens of an image whose crops have `grid` patches: the base crop's, then the map's."""
    rows, columns = grid
    patches = torch.arange(rows * columns)
    found = [torch.stack([torch.full_like(patches, medium.rows[0]), patches])]
    across = medium.sub_crops[1]
    parts = medium.parts(grid, crops.unpad == BEFORE)
    for first in range(1, len(medium.rows), across):
        # Adjacent sub-crops of a row have the same rows of patches that show the image.
        beside = range(first, first + across)
        for line in range(parts[first].top, parts[first].bottom):
            for number in beside:
                index = torch.arange(parts[number].left, parts[number].right) + line * columns
                found.append(torch.stack([torch.full_like(index, medium.rows[number]), index]))
            if crops.scope == PACKED:
                of_map = (first - 1) // across * rows + line
                found.append(torch.tensor([[medium.rows[0]], [NEWLINE - of_map]]))
    return Pool(*torch.cat(found, dim=1))


def part_pools(medium: Medium, grid: Grid) -> list[Pool]:
    """One pool per crop: its patches that show the image, possibly none."""
    found = []
    for row, part in zip(medium.rows, medium.parts(grid), strict=True):
        index = part.patches(grid[1])
        found.append(Pool(torch.full_like(index, row), index, part.grid))
    return found


def joined(record: VisionRecord, pools: Sequence[Pool], newline: Tensor | None) -> VisionRecord:
    """The record of pools of one size T, from the record of all R crops.

    A newline embedding exists only as a projected token, `newline` (E,). ValueError if a pool holds
    newlines and the projected tokens or `newline` are missing.
    """
    device = record.features.device
    rows = torch.stack([pool.rows for pool in pools]).to(device)
    index = torch.stack([pool.index for pool in pools]).to(device)
    lines = (index <= NEWLINE)[:, :, None]
    if not bool(lines.any()):
        return record.take(rows, index, pools[0].grid)
    if newline is None or record.projected is None:
        raise ValueError("newline embeddings are chosen by projected tokens, which are missing")
    found = VisionRecord(record.features, image_ids=record.image_ids).take(rows, index.clamp(min=0))
    own = record.projected[rows, index.clamp(min=0)]
    return replace(
        found,
        features=found.features.masked_fill(lines, 0),
        projected=torch.where(lines, newline.to(own), own),
    )


def keep_of_pools(
    record: VisionRecord,
    pools: Sequence[tuple[Pool, int]],
    newline: Tensor | None,
    run: Callable[[VisionRecord, Tensor], Kept],
    first: Tensor,
) -> Kept:
    """The tokens that `run` keeps of each pool -> R rows, with their places in the pools.

    record   the record of all R crops, in their order
    pools    each pool with its budget
    newline  as in `joined`
    run      takes the record of B pools and their budgets (B,)
    first    (R,) the first crop of each crop's image

    A token without a patch goes to the first row of its pool. Info about patches is -1 or False for
    patches in no pool. A row in no pool gets all other info from its image's first row. The info
    `MEMBERS` is left out, since a merged token may have patches of several crops.
    """
    alike: dict[tuple[int, Grid | None], list[int]] = {}
    for number, (pool, _) in enumerate(pools):
        alike.setdefault((len(pool), pool.grid), []).append(number)
    facts = _Facts(record)
    tokens, where = [], []
    for (size, _), numbers in alike.items():
        # No more pools than `compress` takes at a time, so that only these are copied.
        step = max(1, CHUNK_ELEMENTS // size**2)
        for start in range(0, len(numbers), step):
            some, budgets = zip(*(pools[n] for n in numbers[start : start + step]), strict=True)
            own = joined(record, some, newline)
            device = own.features.device
            kept = run(own, torch.tensor(budgets, device=device))
            rows = torch.stack([pool.rows for pool in some]).to(device)
            index = torch.stack([pool.index for pool in some]).to(device)
            facts.add(kept.info, rows, index)
            at, none = kept.index.clamp(min=0), kept.index < 0
            row = torch.where(none, rows[:, :1], rows.gather(1, at))
            patch = torch.where(none, -1, index.gather(1, at))
            place = torch.arange(at.shape[1], device=device).expand_as(at)
            tokens.append(kept.tokens[kept.mask])
            where.append(torch.stack([row, patch, place])[:, kept.mask])
    return _in_rows(torch.cat(tokens), torch.cat(where, dim=1), len(record), facts.of(first))


class _Facts:
    """Collects the info of pools as info of R rows of T patches each."""

    def __init__(self, record: VisionRecord) -> None:
        self.shape = len(record), record.num_tokens
        self.found: dict[str, Tensor] = {}
        self.seen = torch.zeros(len(record), dtype=torch.bool)

    def add(self, info: Mapping[str, Tensor], rows: Tensor, index: Tensor) -> None:
        """Add the info (B, ...) of pools whose patches are `rows` and `index` (B, T)."""
        own = index >= 0
        for name, fact in info.items():
            if name == MEMBERS:
                continue
            of_patches = fact.shape[1:] == rows.shape[1:]
            if name not in self.found:
                absent = False if fact.dtype == torch.bool else -1
                shape = self.shape if of_patches else (self.shape[0], *fact.shape[1:])
                self.found[name] = fact.new_full(shape, absent)
            if of_patches:
                self.found[name][rows[own], index[own]] = fact[own]
            else:
                self.found[name][rows] = fact[:, None].expand(-1, rows.shape[1], *fact.shape[1:])
        self.seen[rows.flatten().cpu()] = True

    def of(self, first: Tensor) -> dict[str, Tensor]:
        """The info of all rows; `first` (R,) as in `keep_of_pools`."""
        source = torch.where(self.seen, torch.arange(self.shape[0]), first)
        return {
            name: fact if fact.shape == self.shape else fact[source.to(fact.device)]
            for name, fact in self.found.items()
        }


def _in_rows(tokens: Tensor, where: Tensor, rows: int, info: Mapping[str, Tensor]) -> Kept:
    """Put tokens (M, D), in their order, into R rows; `where` (3, M) holds row, patch and place."""
    row, patch, place = where
    order = row.argsort(stable=True)
    count = torch.bincount(row, minlength=rows)
    at = torch.arange(len(row), device=row.device) - (count.cumsum(0) - count)[row[order]]
    shape = rows, int(count.max())
    index, places = (row.new_full(shape, -1) for _ in range(2))
    kept = tokens.new_zeros((*shape, tokens.shape[1]))
    kept[row[order], at] = tokens[order]
    index[row[order], at], places[row[order], at] = patch[order], place[order]
    return Kept(kept, index, count, {**info, PLACE: places})


def shown(kept: Kept, media: Sequence[Medium], grid: Grid) -> Tensor:
    """(R, N) bool: true for tokens that are not patches of the padding."""
    found = torch.zeros(len(kept), grid[0] * grid[1], dtype=torch.bool)
    for medium in media:
        for pool in part_pools(medium, grid):
            found[pool.rows, pool.index] = True
    return found.to(kept.index.device).gather(1, kept.index.clamp(min=0)) | (kept.index < 0)


def in_map_order(
    kept: Kept, media: Sequence[Medium], grid: Grid, *, cls: bool = False, joint: bool = False
) -> Kept:
    """`kept` with places in the `crop_order` "map" of `prunesid.core.crops`.

    cls    whether a first token without a patch is CLS, not a merged token
    joint  whether one choice was among several crops. Merged tokens then belong to no crop and come
           last
    """
    device, (rows, columns) = kept.index.device, grid
    crop = torch.zeros(len(kept), 1, dtype=torch.int64)
    image, top, left, wide = (torch.zeros_like(crop) for _ in range(4))
    for number, medium in enumerate(media):
        own, across = list(medium.rows), medium.sub_crops[1]
        crop[own, 0] = torch.arange(len(own))
        image[own], wide[own] = number, across * columns + 1
        below = (crop[own] - 1).clamp(min=0)
        top[own], left[own] = below // across * rows, below % across * columns
    crop, image, top, left, wide = (each.to(device) for each in (crop, image, top, left, wide))
    index, base = kept.index, crop == 0
    count = torch.arange(index.shape[1], device=device).expand_as(index)
    line, none = index <= NEWLINE, index == -1
    cell = (top + index // columns) * wide + left + index % columns
    cell = torch.where(line, (NEWLINE - index + 1) * wide - 1, cell)
    leading = (count == 0) & cls
    # The base crop, the map, CLS tokens, merged tokens.
    stage = torch.where(none, torch.where(leading, 2, 3), 1)
    last = none & ~leading if joint else torch.zeros_like(none)
    stage = stage.masked_fill(base & ~line & ~last, 0)
    within = torch.where(stage == 1, cell, crop * index.shape[1] + count)
    key = ((image * 4 + stage) << 32) + within
    key = key.masked_fill(~kept.mask, torch.iinfo(torch.int64).max)
    place = torch.empty_like(key).flatten()
    place[key.flatten().argsort(stable=True)] = torch.arange(place.numel(), device=device)
    lengths = torch.zeros(len(media), dtype=torch.int64, device=device)
    lengths.index_add_(0, image[:, 0], kept.count)
    place = place.view_as(key) - (lengths.cumsum(0) - lengths)[image]
    return replace(kept, info={**kept.info, PLACE: place.masked_fill(~kept.mask, -1)})
