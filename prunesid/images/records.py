"""Vision records of many inputs, whose images may come in crops and of several sizes.

The visual input of a question is a sequence of media, each an image or a clip. A medium has one or
more crops: LLaVA-NeXT's views of an image, or the frames of a clip. Each crop is a row of a
VisionRecord, and rows of one grid share a record. A method usually chooses among the patches of one
crop. It chooses among all crops of an image in `SUB_CROPS` if its authors do so, and among all
frames of a clip if a user chose so (`prunesid.core.crops`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from operator import ge
from typing import Any

from prunesid.core.crops import (
    AFTER,
    BEFORE,
    BY_CLIP,
    BY_CROP,
    ENCODER,
    EVERY,
    FRAME_CLS,
    KEEP,
    MAP,
    PACKED,
    SCOPE,
    Crops,
)
from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import CLIP, PLACE, Kept, VisionRecord
from prunesid.images.medium import (
    ALWAYS,
    CLS,
    JOINED,
    SUB_CROPS,
    WHEN_WHOLE,
    Medium,
    grouped,
    repeated,
    row_names,
)
from prunesid.images.pools import Pool, image_pool, in_map_order, keep_of_pools, part_pools, shown
from prunesid.images.relevance import relevance
from prunesid.methods.features import NOTHING, budget_rule_of, compress, crops_of, split_of
from prunesid.methods.registry import requirements, resolve

Share = Callable[[VisionRecord, int, tuple[int, int]], Sequence[int]]
TokensOf = Callable[[int, int], int]


@dataclass(frozen=True, eq=False)
class ImageRecords:
    """R crops of many inputs.

    groups   a VisionRecord for every grid
    members  (groups) the numbers among all R of each record's rows
    inputs   {name of the input: its media}
    share    the most crops that an image in `SUB_CROPS` can have
    crops    the options that a user chose for such images, or for clips (`prunesid.core.crops`)
    newline  (E,) the embedding after each row of such an image's map, if the records have projected
             tokens
    """

    groups: tuple[VisionRecord, ...]
    members: tuple[tuple[int, ...], ...]
    inputs: Mapping[str, tuple[Medium, ...]]
    share: int | None = None
    crops: Mapping[str, Any] = field(default_factory=dict)
    newline: Tensor | None = None

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.inputs)

    @property
    def single(self) -> VisionRecord:
        """The record of a family that makes one crop per image; ValueError if there are several."""
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

    @property
    def grids(self) -> list[tuple[int, int]]:
        """(R) rows and columns of the patches of each crop; ValueError if a record lacks them."""
        found: dict[int, tuple[int, int]] = {}
        for record, rows in zip(self.groups, self.members, strict=True):
            if record.grid is None:
                raise ValueError("a record without a grid does not tell where its patches lie")
            found |= dict.fromkeys(rows, record.grid)
        return [found[row] for row in range(len(found))]

    def budgets(
        self,
        budget: int | Mapping[str, int],
        share: Share | None = None,
        crops: Crops | None = None,
        tokens_of: TokensOf | None = None,
    ) -> Tensor:
        """(R,) int64 number of patches that each crop keeps.

        It is the number of tokens, except for a JOINED medium: there it is the number of patches of
        which these tokens are made.

        budget  tokens of every medium, or {name of an input: tokens of each of its media}
        share   the function of a method's `Split`, with its parameters filled in. It shares the
                tokens of a medium in `SUB_CROPS` among its crops, some of which may get none. It is
                called only if the medium cannot keep everything. None, and for other media: evenly
        crops   the treatment of media in `SUB_CROPS`; None: that of methods inside the encoder
        tokens_of  the tokens that a budget stands for on a medium of so many patches
                (`BudgetRule.of`). None: the budget itself

        ValueError if a medium has fewer tokens than crops.
        """
        crops = crops or ENCODER.under(self.crops)
        sizes = self.sizes
        found = torch.zeros(len(sizes), dtype=torch.int64)
        for medium, given in self._each_budget(budget):
            rows = list(medium.rows)
            joined = medium.layout.get(JOINED, 1)
            own_sizes = [sizes[row] // joined for row in rows]
            if SUB_CROPS in medium.layout and crops.unpad == BEFORE:
                own_sizes = [part.size for part in medium.parts(self._grid)]
            own = given
            if tokens_of is not None and isinstance(budget, int):
                own = tokens_of(given, sum(own_sizes))
            # A sub-crop of a very narrow image may show none of it.
            there = [number for number, size in enumerate(own_sizes) if size]
            if self.share is None or crops.budget_for == EVERY:
                shared = shared_out(own, [own_sizes[number] for number in there])
            else:
                shared = shared_out(own, [own] * self.share)[: len(there)]
            shares = [0] * len(rows)
            for number, count in zip(there, shared, strict=True):
                shares[number] = count
            whole = all(map(ge, shares, own_sizes))
            if share is not None and SUB_CROPS in medium.layout and not whole:
                shares = self._split(medium, own_sizes, sum(shares), share)
            found[rows] = torch.tensor(shares) * joined
        return found

    def _each_budget(self, budget: int | Mapping[str, int]) -> Iterator[tuple[Medium, int]]:
        for name, media in self.inputs.items():
            for medium in media:
                yield medium, budget if isinstance(budget, int) else budget[name]

    def patch_budgets(
        self, budget: int | Mapping[str, int], tokens_of: TokensOf | None = None
    ) -> Tensor:
        """`budgets` minus the places of CLS tokens; ValueError if CLS takes a crop's only place."""
        budgets = self.budgets(budget, tokens_of=tokens_of)
        return budgets - self._reserved(budgets)

    def _split(self, medium: Medium, sizes: Sequence[int], budget: int, share: Share) -> list[int]:
        """The tokens of each crop of a medium in `SUB_CROPS`, whose crops show `sizes` patches."""
        rows, columns = medium.layout[SUB_CROPS]["grid"]
        wanted = share(self._crop(medium.rows[0]), budget, (rows, columns))
        shares = [min(max(0, count), size) for count, size in zip(wanted, sizes, strict=True)]
        return shares if any(shares) else [1, *shares[1:]]

    def _crop(self, row: int) -> VisionRecord:
        """The record of one of the R crops."""
        group, place = self._where[row]
        return self.groups[group].rows([place])

    def compress(
        self, method: str, *, budget: int | Mapping[str, int], seed: int = 0, **params: object
    ) -> Kept:
        """`prunesid.compress` on every crop -> R rows.

        budget  an int for every medium, as the method reads it, or {name of an input: tokens of
                each of its media}

        Images in `SUB_CROPS` are treated as the method's authors do, unless a user chose otherwise.
        A method with a split of its own decides what each crop gets, which may be nothing. A method
        that keeps CLS by itself gets no second one. ValueError if CLS takes a crop's only place.
        """
        rule, tokens_of = budget_rule_of(method), None
        if rule is not None:
            tokens_of = rule.of(resolve(method, **params))
            params = {**params, **rule.then}
        cls = requirements(method, **params).cls
        if not self._in_sub_crops:
            shared = self.budgets if cls else self.patch_budgets
            budgets = shared(budget, tokens_of=tokens_of)
            run = self._by_clip if self.crops.get(SCOPE) == BY_CLIP else self._by_crop
            return self.with_cls(run(method, budgets, seed, params), always=not cls)
        crops = crops_of(method, self.crops, **params)
        by_crop, media = crops.scope == BY_CROP, list(self._media())
        if by_crop:
            split, share = split_of(method), None
            if split is not None:
                share = partial(split.share, **resolve(method, **params))
                params = {**params, **split.then}
            budgets = self.budgets(budget, share, crops, tokens_of)
        if by_crop and crops.unpad != BEFORE:
            kept = self._by_crop(method, budgets, seed, params)
        elif by_crop:
            parts = [pool for medium in media for pool in part_pools(medium, self._grid)]
            pools = [(pool, own) for pool, own in zip(parts, budgets.tolist(), strict=True) if own]
            kept = self._by_pool(pools, method, seed, params)
            kept = replace(kept, info={n: fact for n, fact in kept.info.items() if n != PLACE})
        else:
            kept = self._by_pool(self._images(budget, crops, tokens_of), method, seed, params)
        if crops.unpad == AFTER:
            kept = kept.only(shown(kept, media, self._grid))
        if crops.crop_order == MAP:
            kept = in_map_order(kept, media, self._grid, cls=cls, joint=not by_crop)
        return kept

    @property
    def _in_sub_crops(self) -> bool:
        """Whether all media are images in `SUB_CROPS`."""
        return bool(self.inputs) and all(SUB_CROPS in medium.layout for medium in self._media())

    def _by_crop(
        self, method: str, budgets: Tensor, seed: int, params: Mapping[str, object]
    ) -> Kept:
        """Compress every crop by itself, to its budget (R,)."""
        parts = [
            compress(
                record,
                method,
                seed=seed,
                **params,
                budget=budgets[list(rows)].clamp(min=1).to(record.features.device),
            )
            for record, rows in zip(self.groups, self.members, strict=True)
        ]
        kept = self._in_order(parts)
        nothing = budgets == 0
        return kept.without(nothing.to(kept.count.device)) if bool(nothing.any()) else kept

    def _by_clip(
        self, method: str, budgets: Tensor, seed: int, params: Mapping[str, object]
    ) -> Kept:
        """Compress the frames of every medium together, to the sum of their budgets (R,)."""
        patches, pools = torch.arange(self._grid[0] * self._grid[1]), []
        for medium in self._media():
            rows = torch.tensor(medium.rows).repeat_interleave(len(patches))
            # One row alone is an image, which has a grid.
            grid = self._grid if len(medium.rows) == 1 else None
            pool = Pool(rows, patches.repeat(len(medium.rows)), grid)
            pools.append((pool, int(budgets[list(medium.rows)].sum())))
        kept = self._by_pool(pools, method, seed, params)
        # Frames enter one after another.
        return replace(kept, info={name: f for name, f in kept.info.items() if name != PLACE})

    @property
    def _grid(self) -> tuple[int, int]:
        """Rows and columns of patches, equal in all crops of images in `SUB_CROPS`."""
        (record,) = self.groups
        if record.grid is None:
            raise ValueError("sub-crops need the grid of their patches")
        return record.grid

    def _images(
        self, budget: int | Mapping[str, int], crops: Crops, tokens_of: TokensOf | None
    ) -> list[tuple[Pool, int]]:
        """Each image as one pool, with the number of tokens to keep."""
        given = [own for _, own in self._each_budget(budget)]
        pools = [image_pool(medium, self._grid, crops) for medium in self._media()]
        if tokens_of is not None and isinstance(budget, int):
            given = [tokens_of(own, len(pool)) for own, pool in zip(given, pools, strict=True)]
        if crops.budget_for != EVERY and self.share is not None:
            if crops.scope == PACKED:
                # DivPrune's rate is of the tokens of the most crops, without newlines.
                most = self.share * self._grid[0] * self._grid[1]
                given = [
                    max(1, round(own * len(pool) / most))
                    for own, pool in zip(given, pools, strict=True)
                ]
            else:
                budgets = self.budgets(budget, None, crops, tokens_of)
                given = [int(budgets[list(medium.rows)].sum()) for medium in self._media()]
        return list(zip(pools, given, strict=True))

    def _by_pool(
        self,
        pools: Sequence[tuple[Pool, int]],
        method: str,
        seed: int,
        params: Mapping[str, object],
    ) -> Kept:
        """Compress every pool by itself, to its budget -> R rows."""
        first = torch.empty(len(self.sizes), dtype=torch.int64)
        for medium in self._media():
            first[list(medium.rows)] = medium.rows[0]
        (record,) = self.groups
        in_order = record if self._sorted else record.rows(self._order())

        def run(pool: VisionRecord, own: Tensor) -> Kept:
            return compress(pool, method, budget=own, seed=seed, **params)

        return keep_of_pools(in_order, pools, self.newline, run, first)

    def all_tokens(self) -> Kept:
        """Every patch of every crop -> R rows, after CLS if the unmodified model has it there."""
        return self.with_cls(self._in_order([all_of(record) for record in self.groups]))

    def asked(
        self, owners: Mapping[str, str], vectors: Mapping[str, Tensor], encoder: str
    ) -> ImageRecords:
        """The records with one input per question, and the relevance of every patch to it.

        owners   {name of a question: the input that it is asked on}
        vectors  {name of a question: its vector by the encoder, CLIP or EMBEDDINGS}

        ValueError if a record lacks the features that the encoder's vectors are compared with.
        """
        found = self._repeated(owners)
        names = row_names(found.inputs)
        whose = {row: name for name, media in found.inputs.items() for m in media for row in m.rows}
        groups = []
        for own, rows in zip(found.groups, found.members, strict=True):
            patches = own.joint if encoder == CLIP else own.projected
            if patches is None:
                raise ValueError(f"the records hold no patches to compare by {encoder!r}")
            # Media without names stay without: random draws then depend on their content.
            named = None if own.image_ids is None else tuple(names[row] for row in rows)
            cosines = relevance(patches, [vectors[whose[row]] for row in rows])
            groups.append(replace(own, image_ids=named, relevance_by=encoder, relevance=cosines))
        return replace(found, groups=tuple(groups))

    def choosing(self, chosen: Mapping[str, str]) -> ImageRecords:
        """The same records with the options in `chosen`, in place of what the user set for them."""
        found = replace(self, crops={**self.crops, **chosen})
        if FRAME_CLS not in chosen:
            return found
        when = ALWAYS if chosen[FRAME_CLS] == KEEP else WHEN_WHOLE
        inputs = {
            name: tuple(
                replace(medium, layout={**medium.layout, CLS: when})
                if CLS in medium.layout
                else medium
                for medium in media
            )
            for name, media in self.inputs.items()
        }
        return replace(found, inputs=inputs)

    def only(self, names: Iterable[str]) -> ImageRecords:
        """The records of some inputs, in the order of `names`; rows are numbered anew."""
        return self._repeated({name: name for name in names})

    def _repeated(self, owners: Mapping[str, str]) -> ImageRecords:
        """The records of new inputs: {name: the input whose media it has}."""
        inputs, sources = repeated(self.inputs, owners)
        members: list[list[int]] = [[] for _ in self.groups]
        for row, source in enumerate(sources):
            members[self._where[source][0]].append(row)
        groups = tuple(
            record.rows(_as_slice([self._where[sources[row]][1] for row in rows]))
            for record, rows in zip(self.groups, members, strict=True)
            if rows
        )
        kept = tuple(tuple(rows) for rows in members if rows)
        return replace(self, groups=groups, members=kept, inputs=inputs)

    def gather(
        self, index: Tensor, name: str = "tokens", sources: Sequence[int] | None = None
    ) -> Tensor:
        """A field (B, T, ...) of the records for patches by their index (R', N) -> (R', N, ...).

        sources  the number among R of the row that each row of the index reads; None: its own

        Zero where the index is below 0. ValueError if a record lacks the field.
        """
        rows = range(len(index)) if sources is None else sources
        found: Tensor | None = None
        for number, record in enumerate(self.groups):
            values = getattr(record, name)
            if values is None:
                raise ValueError(f"the records hold no {name}")
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
        """(R) for each row, the group that holds it and its place there."""
        found = {
            row: (number, place)
            for number, rows in enumerate(self.members)
            for place, row in enumerate(rows)
        }
        return [found[row] for row in range(len(found))]

    def _in_order(self, parts: Sequence[Kept]) -> Kept:
        whole = Kept.cat(parts)
        return whole if self._sorted else whole.rows(self._order())

    def _reserved(self, budgets: Tensor) -> Tensor:
        """(R,) int64 places in each crop's budget that CLS takes."""
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
        """`kept` with the CLS token before the patches of crops whose layout says so.

        always  False treats ALWAYS as WHEN_WHOLE
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
            raise ValueError(f"the CLS token goes first, but groups {without} lack it")
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
        """(R,) bool: true for crops that keep all of their patches in raster order."""
        sizes = torch.tensor(self.sizes, device=kept.count.device)
        places = torch.arange(kept.index.shape[1], device=kept.count.device)
        raster = (kept.index == places) | (places >= sizes[:, None])
        return (kept.count == sizes) & raster.all(1)

    def _media(self) -> Iterator[Medium]:
        for media in self.inputs.values():
            yield from media

    @property
    def _sorted(self) -> bool:
        """Whether one group holds all rows in their order."""
        return len(self.groups) == 1 and self.members[0] == tuple(range(len(self.members[0])))

    def _order(self) -> Tensor:
        return torch.tensor([row for rows in self.members for row in rows]).argsort()

    def to(self, device: torch.device | str) -> ImageRecords:
        """These records on another device."""
        newline = None if self.newline is None else self.newline.to(device)
        groups = tuple(record.to(device) for record in self.groups)
        return replace(self, groups=groups, newline=newline)

    @staticmethod
    def without_features(
        grids: Sequence[tuple[int, int]],
        cls: Tensor,
        inputs: Mapping[str, tuple[Medium, ...]],
        share: int | None = None,
        crops: Mapping[str, Any] = NOTHING,
    ) -> ImageRecords:
        """R crops with their sizes, budgets and CLS tokens, and features of zeros.

        For methods inside the encoder, which compute no ordinary features, and for counting costs,
        which needs none.

        grids  (R) rows and columns of the patches of each crop
        cls    (R, D) CLS tokens; features have their width, dtype and device, and take no memory
        """
        rows: dict[tuple[int, int], list[int]] = {}
        for row, grid in enumerate(grids):
            rows.setdefault(grid, []).append(row)
        none = cls.new_zeros(1, 1, 1)
        groups = tuple(
            VisionRecord(
                none.expand(len(own), grid[0] * grid[1], cls.shape[1]), cls[own], grid=grid
            )
            for grid, own in rows.items()
        )
        return ImageRecords(groups, tuple(map(tuple, rows.values())), inputs, share, crops)

    @staticmethod
    def named(
        groups: Sequence[VisionRecord],
        members: Sequence[Sequence[int]],
        media: Sequence[Medium],
        names: Sequence[str] | None,
        **others: Any,
    ) -> ImageRecords:
        """The records of media; medium i belongs to the input called `names[i]`.

        Without names, every medium is an input of its own, called by its number. The names of
        inputs become names of their crops, so that random choices depend on nothing else. `others`
        as in `ImageRecords`. ValueError if the media of one input are not adjacent.
        """
        inputs = grouped(names, media)
        if names is not None:
            rows = row_names(inputs)
            groups = [
                replace(record, image_ids=tuple(rows[row] for row in own))
                for record, own in zip(groups, members, strict=True)
            ]
        return ImageRecords(tuple(groups), tuple(map(tuple, members)), inputs, **others)

    @staticmethod
    def cat(parts: Sequence[ImageRecords]) -> ImageRecords:
        """The inputs of all parts, whose names must differ; no parts give no inputs."""
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
        found = ImageRecords(tuple(groups), tuple(map(tuple, rows)), inputs)
        if not parts:
            return found
        first = parts[0]
        return replace(found, share=first.share, crops=first.crops, newline=first.newline)


def by_grid(
    crops: Sequence[tuple[VisionRecord, Sequence[int]]],
) -> tuple[list[VisionRecord], list[list[int]]]:
    """Records and the numbers of their rows, merged into one record, with its numbers, per grid."""
    records: dict[tuple[int, int] | int, list[VisionRecord]] = {}
    rows: dict[tuple[int, int] | int, list[int]] = {}
    for record, numbers in crops:
        key = record.grid or record.num_tokens
        records.setdefault(key, []).append(record)
        rows.setdefault(key, []).extend(numbers)
    return [VisionRecord.cat(own) for own in records.values()], list(rows.values())


def shared_out(budget: int, sizes: Sequence[int]) -> list[int]:
    """The tokens of each crop if a budget is shared evenly among crops of `sizes` patches.

    Tokens that a small crop cannot use go to the others. The first crops get the remainder. The sum
    is min(budget, sum of sizes). ValueError if there are more crops than tokens.
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


def all_of(record: VisionRecord) -> Kept:
    """All tokens of a record, in raster order."""
    index, count = whole_index([record.num_tokens] * len(record))
    device = record.features.device
    return Kept(record.tokens, index.to(device), count.to(device))


def whole_index(sizes: Iterable[int]) -> tuple[Tensor, Tensor]:
    """Index (R, N) and count (R,) of crops that keep all of their patches in raster order."""
    count = torch.tensor(list(sizes))
    places = torch.arange(int(count.max()))
    return torch.where(places < count[:, None], places, -1), count


def _as_slice(numbers: Sequence[int]) -> slice | Sequence[int]:
    """The same numbers, as a slice if they are consecutive, since slices copy nothing."""
    one_by_one = range(numbers[0], numbers[0] + len(numbers))
    return (
        slice(one_by_one.start, one_by_one.stop) if list(numbers) == list(one_by_one) else numbers
    )
