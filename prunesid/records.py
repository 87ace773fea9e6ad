"""Vision records of many inputs, whose images may come in crops and of several sizes.

The visual input of a question is a sequence of media, each an image or a clip. A medium is one or
more crops (LLaVA-NeXT's views of an image, the frames of a clip). A crop is a row of a VisionRecord;
rows of one grid share a record.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from operator import ge
from typing import Any

import torch
from torch import Tensor

from prunesid.asking import relevance
from prunesid.box import Box
from prunesid.methods import compress, requirements, resolve, split_of
from prunesid.record import CLIP, Kept, VisionRecord

IMAGE, VIDEO = "image", "video"
# What the first crop of a medium shows: the middle square of the image, all of it, or all of it in
# the middle of a larger square.
CENTER, WHOLE, PADDED = "center", "whole", "padded"


# Key of a layout: when the CLS token stands before the patches of a crop. WHEN_WHOLE: where all of
# the medium is kept; ALWAYS: elsewhere as well, in one of the places of the crop's budget.
CLS = "cls"
WHEN_WHOLE, ALWAYS = "whole", "always"
# Key of a layout: which patches of each crop its row holds, as `Box.values`; without it, all of them.
PARTS = "parts"
# Key of a layout: the medium is an image as a base crop, its first row, and parts of it. "grid": rows
# and columns of these sub-crops; "there": the numbers, in raster order, of those that are rows.
SUB_CROPS = "sub_crops"

Share = Callable[[VisionRecord, int, tuple[int, int]], Sequence[int]]


@dataclass(frozen=True)
class Medium:
    """An image or a clip.

    kind    "image" or "video"
    rows    numbers of its crops or frames among all R, in their order
    layout  what its model family has to know to put the crops together, as JSON values; "view" is
            CENTER, WHOLE or PADDED
    """

    kind: str
    rows: tuple[int, ...]
    layout: Mapping[str, Any]

    @property
    def parts(self) -> list[Box | None]:
        """Which patches of its crop each row holds; None for all of them."""
        parts = self.layout.get(PARTS)
        return [None] * len(self.rows) if parts is None else [Box(*values) for values in parts]


@dataclass(frozen=True, eq=False)
class Records:
    """R crops of many inputs.

    groups   a VisionRecord for every grid
    members  (groups) the numbers among all R of each record's rows
    inputs   {name of the input: its media}
    share    how many crops a budget is meant for; a medium of fewer gets less. None: as many as the
             medium has
    """

    groups: tuple[VisionRecord, ...]
    members: tuple[tuple[int, ...], ...]
    inputs: Mapping[str, tuple[Medium, ...]]
    share: int | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def single(self) -> VisionRecord:
        """The record of a family that makes one crop of an image; ValueError where it is not so."""
        if len(self.groups) != 1 or len(self.inputs) != len(self.members[0]):
            raise ValueError("these inputs come in several crops or grids, not in one record")
        return self.groups[0]

    @property
    def sizes(self) -> list[int]:
        """(R) patches of each crop."""
        found = {
            row: record.num_tokens
            for record, rows in zip(self.groups, self.members, strict=True)
            for row in rows
        }
        return [found[row] for row in range(len(found))]

    def budgets(self, budget: int | Mapping[str, int], share: Share | None = None) -> Tensor:
        """(R,) int64 tokens of each crop, from the tokens of a medium or, by its name, an input's media.

        share  how media in `SUB_CROPS` that cannot keep everything share out what they get (a
               `methods.Split`'s without its parameters); some of their crops may get nothing. Without
               it, and for other media, evenly

        ValueError where a medium has fewer tokens than crops.
        """
        sizes = self.sizes
        found = torch.zeros(len(sizes), dtype=torch.int64)
        for name, media in self.inputs.items():
            own = budget if isinstance(budget, int) else budget[name]
            for medium in media:
                rows = list(medium.rows)
                own_sizes = [sizes[row] for row in rows]
                if self.share is None:
                    shares = shared_out(own, own_sizes)
                else:
                    shares = shared_out(own, [own] * self.share)[: len(rows)]
                whole = all(map(ge, shares, own_sizes))
                if share is not None and SUB_CROPS in medium.layout and not whole:
                    shares = self._split(medium, own_sizes, sum(shares), share)
                found[rows] = torch.tensor(shares)
        return found

    def patch_budgets(self, budget: int | Mapping[str, int], share: Share | None = None) -> Tensor:
        """`budgets` without the places that CLS takes; ValueError where it takes a crop's only one."""
        budgets = self.budgets(budget, share)
        return budgets - self._reserved(budgets)

    def _split(self, medium: Medium, sizes: Sequence[int], budget: int, share: Share) -> list[int]:
        """The tokens of the crops, of `sizes` patches, of a medium in `SUB_CROPS`: one at the least."""
        parts, first = medium.layout[SUB_CROPS], medium.rows[0]
        there, (rows, columns) = parts["there"], parts["grid"]
        given = share(self._crop(first), budget, (rows, columns) if there else (0, 0))
        wanted = [given[0], *(given[1 + number] for number in there)]
        shares = [min(max(0, count), size) for count, size in zip(wanted, sizes, strict=True)]
        return shares if any(shares) else [1, *shares[1:]]

    def _crop(self, row: int) -> VisionRecord:
        """The record of one of the R crops."""
        group = next(n for n, rows in enumerate(self.members) if row in rows)
        return self.groups[group].rows([self.members[group].index(row)])

    def compress(
        self, method: str, *, budget: int | Mapping[str, int], seed: int = 0, **params: object
    ) -> Kept:
        """`prunesid.compress` on every crop -> R rows. `budget` is meant per medium.

        A method with a split of its own decides what the crops of an image in `SUB_CROPS` get,
        nothing perhaps. One that keeps CLS by itself gets no other one. ValueError where CLS takes
        the only place of a crop.
        """
        split, share = split_of(method), None
        if split is not None and all(SUB_CROPS in medium.layout for medium in self._media()):
            share = partial(split.share, **resolve(method, **params))
            params = {**params, **split.then}
        own = requirements(method, **params).cls
        budgets = self.budgets(budget, share) if own else self.patch_budgets(budget, share)
        parts = [
            compress(
                record, method, seed=seed, **params,
                budget=budgets[list(rows)].clamp(min=1).to(record.features.device),
            )
            for record, rows in zip(self.groups, self.members, strict=True)
        ]  # fmt: skip
        kept = self._in_order(parts)
        nothing = budgets == 0
        if bool(nothing.any()):
            kept = kept.without(nothing.to(kept.count.device))
        return self.with_cls(kept, always=not own)

    def all_tokens(self) -> Kept:
        """Every patch of every crop: R rows as they are, CLS first where the model has it so."""
        parts = []
        for record in self.groups:
            index, count = whole_index([record.num_tokens] * len(record))
            device = record.features.device
            parts.append(Kept(record.features, index.to(device), count.to(device)))
        return self.with_cls(self._in_order(parts))

    def asked(
        self, owners: Mapping[str, str], vectors: Mapping[str, Tensor], encoder: str
    ) -> Records:
        """The records of questions, each of which is an input, with the relevance of every patch.

        owners   {name of a question: the input that it is asked on}
        vectors  {name of a question: it as the encoder, CLIP or EMBEDDINGS, has it}

        ValueError where a record lacks what the encoder compares.
        """
        inputs, sources = repeated(self.inputs, owners)
        names = row_names(inputs)
        whose = {row: name for name, media in inputs.items() for m in media for row in m.rows}
        members: list[list[int]] = [[] for _ in self.groups]
        for row, source in enumerate(sources):
            members[self._where[source][0]].append(row)
        groups = []
        for record, rows in zip(self.groups, members, strict=True):
            if rows:
                own = record.rows([self._where[sources[row]][1] for row in rows])
                patches = own.joint if encoder == CLIP else own.projected
                if patches is None:
                    raise ValueError(
                        f"what the vision tower left here holds nothing for {encoder!r}"
                    )
                # Media without names stay so: their content decides what is drawn.
                named = None if own.image_ids is None else tuple(names[row] for row in rows)
                own_vectors = [vectors[whose[row]] for row in rows]
                groups.append(replace(
                    own, image_ids=named, relevance_by=encoder,
                    relevance=relevance(patches, own_vectors),
                ))  # fmt: skip
        kept = tuple(tuple(rows) for rows in members if rows)
        return Records(tuple(groups), kept, inputs, self.share)

    def gather(
        self, index: Tensor, name: str = "features", sources: Sequence[int] | None = None
    ) -> Tensor:
        """A field (B, T, ...) of the records for patches by their index (R', N) -> (R', N, ...).

        sources  which of the R rows each row of the index is of; None: row by row

        Zero where the index is below 0. ValueError where a record lacks the field.
        """
        rows = range(len(index)) if sources is None else sources
        found: Tensor | None = None
        for number, record in enumerate(self.groups):
            values = getattr(record, name)
            if values is None:
                raise ValueError(f"what the vision tower left behind here holds no {name}")
            if found is None:
                found = values.new_zeros(*index.shape, *values.shape[2:])
            own = [n for n, row in enumerate(rows) if self._where[row][0] == number]
            places = torch.tensor([self._where[rows[n]][1] for n in own], dtype=torch.int64)
            wanted = index[own]
            taken = values[places.to(wanted.device)[:, None], wanted.clamp(min=0)]
            taken[wanted < 0] = 0
            found[own] = taken
        if found is None:
            raise ValueError("there are no records to gather from")
        return found

    @cached_property
    def _where(self) -> list[tuple[int, int]]:
        """(R) the group that holds each row, and its place there."""
        found = {
            row: (number, place)
            for number, rows in enumerate(self.members)
            for place, row in enumerate(rows)
        }
        return [found[row] for row in range(len(found))]

    def _in_order(self, parts: Sequence[Kept]) -> Kept:
        whole = Kept.cat(parts)
        if len(parts) == 1 and self.members[0] == tuple(range(len(whole))):
            return whole
        return whole.rows(self._order())

    def _reserved(self, budgets: Tensor) -> Tensor:
        """(R,) int64 places of each crop's budget that CLS takes."""
        whole = budgets >= torch.tensor(self.sizes)
        found = torch.zeros_like(budgets)
        for medium in self._media():
            rows = list(medium.rows)
            if medium.layout.get(CLS) == ALWAYS and not bool(whole[rows].all()):
                found[rows] = 1
        if bool((budgets[found > 0] < 2).any()):
            raise ValueError(
                "a crop or frame with a budget of 1 token has no place for a patch beside its CLS "
                "token; raise the budget or leave CLS out"
            )
        return found

    def with_cls(self, kept: Kept, *, always: bool = True) -> Kept:
        """The CLS token before the patches of crops, where their layout says so.

        always  False: ALWAYS means WHEN_WHOLE
        """
        whole = self._whole(kept)
        first = torch.zeros_like(whole)
        for medium in self._media():
            rows, when = list(medium.rows), medium.layout.get(CLS)
            if (always and when == ALWAYS) or (when is not None and bool(whole[rows].all())):
                first[rows] = True
        if not bool(first.any()):
            return kept
        without = [number for number, record in enumerate(self.groups) if record.cls is None]
        if without:
            raise ValueError(f"the CLS token goes in front, which groups {without} lack")
        cls = torch.cat([record.cls for record in self.groups if record.cls is not None])
        cls = cls[self._order()][:, None].to(kept.tokens.dtype)
        none = torch.full_like(kept.index[:, :1], -1)
        longer = torch.cat([cls, kept.tokens], 1), torch.cat([none, kept.index], 1)
        padded = (
            torch.cat([kept.tokens, torch.zeros_like(cls)], 1),
            torch.cat([kept.index, none], 1),
        )
        tokens = torch.where(first[:, None, None], longer[0], padded[0])
        index = torch.where(first[:, None], longer[1], padded[1])
        count = kept.count + first
        width = int(count.max())
        return Kept(tokens[:, :width], index[:, :width], count, kept.info)

    def _whole(self, kept: Kept) -> Tensor:
        """(R,) bool, true for crops that keep all of their patches in raster order."""
        sizes = torch.tensor(self.sizes, device=kept.count.device)
        places = torch.arange(kept.index.shape[1], device=kept.count.device)
        raster = (kept.index == places) | (places >= sizes[:, None])
        return (kept.count == sizes) & raster.all(1)

    def _media(self) -> Iterator[Medium]:
        for media in self.inputs.values():
            yield from media

    def _order(self) -> Tensor:
        return torch.tensor([row for rows in self.members for row in rows]).argsort()

    def to(self, device: torch.device | str) -> Records:
        """The same records on another device."""
        return replace(self, groups=tuple(record.to(device) for record in self.groups))

    @staticmethod
    def named(
        groups: Sequence[VisionRecord],
        members: Sequence[Sequence[int]],
        media: Sequence[Medium],
        names: Sequence[str] | None,
        share: int | None = None,
    ) -> Records:
        """The records of media, each of the input in `names`; without names, of one by its number.

        Named inputs name their crops, so that random choices depend on nothing else. ValueError where
        the media of one input are apart.
        """
        inputs = grouped(names or [str(number) for number in range(len(media))], media)
        if names is not None:
            rows = row_names(inputs)
            groups = [
                replace(record, image_ids=tuple(rows[row] for row in own))
                for record, own in zip(groups, members, strict=True)
            ]
        return Records(tuple(groups), tuple(map(tuple, members)), inputs, share)

    @staticmethod
    def cat(parts: Sequence[Records]) -> Records:
        """The inputs of all parts, which have names of their own; none of no parts."""
        crops: list[tuple[VisionRecord, list[int]]] = []
        inputs: dict[str, tuple[Medium, ...]] = {}
        start = 0
        for part in parts:
            for record, members in zip(part.groups, part.members, strict=True):
                crops.append((record, [start + row for row in members]))
            for name, media in part.inputs.items():
                if name in inputs:
                    raise ValueError(f"the input {name!r} occurs twice")
                inputs[name] = tuple(
                    replace(m, rows=tuple(start + row for row in m.rows)) for m in media
                )
            start += sum(map(len, part.members))
        groups, rows = by_grid(crops)
        return Records(
            tuple(groups), tuple(map(tuple, rows)), inputs, parts[0].share if parts else None
        )


def by_grid(
    crops: Sequence[tuple[VisionRecord, Sequence[int]]],
) -> tuple[list[VisionRecord], list[list[int]]]:
    """Records and the numbers of their rows -> one record for every grid, and its numbers."""
    records: dict[tuple[int, int] | int, list[VisionRecord]] = {}
    rows: dict[tuple[int, int] | int, list[int]] = {}
    for record, numbers in crops:
        key = record.grid or record.num_tokens
        records.setdefault(key, []).append(record)
        rows.setdefault(key, []).extend(numbers)
    return [VisionRecord.cat(own) for own in records.values()], list(rows.values())


def shared_out(budget: int, sizes: Sequence[int]) -> list[int]:
    """A budget shared evenly among crops of `sizes` patches; what one cannot use goes to the others.

    The first crops get the remainder. The sum is min(budget, sum of sizes). ValueError where there
    are more crops than tokens.
    """
    if budget < len(sizes):
        raise ValueError(f"{budget} tokens cannot be shared among {len(sizes)} crops")
    shares = [0] * len(sizes)
    left, open_crops = budget, list(range(len(sizes)))
    while open_crops:
        each, extra = divmod(left, len(open_crops))
        full = [i for n, i in enumerate(open_crops) if sizes[i] <= each + (n < extra)]
        if not full:
            for n, i in enumerate(open_crops):
                shares[i] = each + (n < extra)
            break
        for i in full:
            shares[i] = sizes[i]
            left -= sizes[i]
        open_crops = [i for i in open_crops if i not in full]
    return shares


def whole_index(sizes: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Index (R, N) and count (R,) of crops that keep all of their patches in raster order."""
    count = torch.tensor(list(sizes))
    places = torch.arange(int(count.max()))
    return torch.where(places < count[:, None], places, -1), count


def grouped(names: Sequence[str], media: Sequence[Medium]) -> dict[str, tuple[Medium, ...]]:
    """{input: its media}; ValueError where those of one input are apart, or the lengths differ."""
    found: dict[str, list[Medium]] = {}
    last = None
    for name, medium in zip(names, media, strict=True):
        if name in found and name != last:
            raise ValueError(f"the media of the input {name!r} are not next to each other")
        found.setdefault(name, []).append(medium)
        last = name
    return {name: tuple(own) for name, own in found.items()}


def repeated(
    inputs: Mapping[str, Sequence[Medium]], owners: Mapping[str, str]
) -> tuple[dict[str, tuple[Medium, ...]], list[int]]:
    """Inputs {name: media} that are each the media of an input, and the row that each row repeats.

    owners  {name: the input}
    """
    found, sources = {}, list[int]()
    for name, owner in owners.items():
        media = []
        for medium in inputs[owner]:
            first = len(sources)
            sources += medium.rows
            media.append(replace(medium, rows=tuple(range(first, len(sources)))))
        found[name] = tuple(media)
    return found, sources


def row_names(inputs: Mapping[str, Sequence[Medium]]) -> dict[int, str]:
    """What random choices on each row depend on: the input, and the row's number where it has several."""
    found = {}
    for name, media in inputs.items():
        rows = [row for medium in media for row in medium.rows]
        for number, row in enumerate(rows):
            found[row] = name if len(rows) == 1 else f"{name}/{number}"
    return found
