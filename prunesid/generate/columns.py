"""A batch of prompts inside the decoder: one column per token, in any order, with gaps.

A token's place in its sequence is stored with it and does not follow from its column. Padding may
therefore lie on any side. A dropped token may stay as a column that no query sees, and a merged one
may be appended at the end. The attention mask is the same expression for all of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from prunesid.methods.decoder.schedule import Choice

BEFORE, VISUAL, AFTER, GONE = range(4)
"""Text before and between images, visual tokens, text after them; padding and dropped tokens."""


@dataclass(frozen=True, eq=False)
class Columns:
    """B prompts of S columns.

    hidden    (B, S, E + X) hidden states, and X channels for later layers. X is a multiple of E:
              each of the next layers adds E of them to its output
    kind      (B, S) int64, BEFORE, VISUAL, AFTER or GONE
    source    (B, S) int64, number of a visual token at the decoder's input; -1 for others
    place     (B, S) int64, a permutation of 0..S-1 per row: order in the sequence, GONE last
    position  (B, S, P) int64, rotary positions of a token: one, or its time, row and column
    """

    hidden: Tensor
    kind: Tensor
    source: Tensor
    place: Tensor
    position: Tensor

    @classmethod
    def of(cls, hidden: Tensor, kind: Tensor, position: Tensor | None = None) -> Columns:
        """Prompts at the decoder's input; without `position` tokens are numbered from 0.

        ValueError unless every row, apart from GONE columns, ends in the text after its images.
        """
        order = torch.arange(kind.shape[1], device=kind.device).expand_as(kind)
        place = _places(kind, order)
        if not torch.equal(place, _places(torch.where(kind == GONE, GONE, VISUAL), order)):
            raise ValueError("a prompt must end in the text after its visual tokens")
        if position is None:
            position = place[:, :, None]
        visual = kind == VISUAL
        return cls(
            hidden=hidden,
            kind=kind,
            source=torch.where(visual, visual.cumsum(dim=1) - 1, -1),
            place=place,
            position=position.masked_fill((kind == GONE)[:, :, None], 0),
        )

    def __len__(self) -> int:
        return self.kind.shape[0]

    @property
    def seen(self) -> Tensor:
        """(B, S) bool: the columns that take part, all but GONE ones."""
        return self.kind != GONE

    @property
    def visual_count(self) -> Tensor:
        """(B,) int64 visual tokens, merged ones included."""
        return (self.kind == VISUAL).sum(dim=1)

    def row(self, number: int, kind: int | None = None) -> Tensor:
        """Columns of a row in sequence order: those of one kind, or all that take part."""
        kinds = self.kind[number]
        columns = torch.nonzero(kinds != GONE if kind is None else kinds == kind)[:, 0]
        return columns[self.place[number, columns].argsort()]

    def since(self, column: int) -> Columns:
        """The columns from `column` on."""
        return Columns(
            **{name: getattr(self, name)[:, column:] for name in self.__dataclass_fields__}
        )

    def rows(self, rows: Tensor) -> Columns:
        """Prompts of which row i is the former row `rows[i]`; rows may repeat."""
        return Columns(**{n: getattr(self, n)[rows] for n in self.__dataclass_fields__})

    def gathered(self) -> Columns:
        """The columns that take part, in sequence order; shorter rows end in GONE columns."""
        order = self.order()

        def picked(values: Tensor) -> Tensor:
            wide = order.reshape(*order.shape, *[1] * (values.ndim - 2))
            return values.gather(1, wide.expand(*order.shape, *values.shape[2:]))

        return Columns(**{name: picked(getattr(self, name)) for name in self.__dataclass_fields__})

    def without(self, lost: Tensor) -> Columns:
        """These columns with those of `lost` (B, S) bool marked GONE."""
        kind = self.kind.masked_fill(lost, GONE)
        return replace(self, kind=kind, place=_places(kind, self.place))

    def order(self) -> Tensor:
        """(B, W) columns in sequence order; W is the largest number of columns left in a row."""
        return self.place.argsort(dim=1)[:, : int(self.seen.sum(dim=1).max())]


def pruned(columns: Columns, choices: Sequence[Choice], positions: str) -> Columns:
    """The columns after each row's choice among its visual tokens.

    Tokens that are not kept are GONE; merged tokens are appended.
    """
    lost = columns.kind == VISUAL
    for number, choice in enumerate(choices):
        lost[number, columns.row(number, VISUAL)[choice.keep]] = False
    columns = _append(columns.without(lost), choices)
    if positions == "original":
        return columns
    return replace(columns, position=columns.place.masked_fill(~columns.seen, 0)[:, :, None])


def _append(columns: Columns, choices: Sequence[Choice]) -> Columns:
    hidden = columns.hidden
    merged = [hidden[0, :0] if c.merged is None else c.merged.to(hidden.dtype) for c in choices]
    counts = [len(tokens) for tokens in merged]
    if not any(counts):
        return columns
    new = pad_sequence(merged, batch_first=True)
    old = columns.kind
    number = torch.arange(new.shape[1], device=old.device).expand(len(choices), -1)
    real = number < torch.tensor(counts, device=old.device)[:, None]
    given = [
        old.new_zeros(count, columns.position.shape[2]) if c.positions is None else c.positions
        for c, count in zip(choices, counts, strict=True)
    ]
    kind = torch.cat([old, torch.where(real, VISUAL, GONE)], dim=1)
    # The highest places: `_places` puts them before the text after the images, after all else.
    order = torch.cat([columns.place, number + old.shape[1]], dim=1)
    return Columns(
        hidden=torch.cat([hidden, new], dim=1),
        kind=kind,
        source=torch.cat([columns.source, torch.full_like(number, -1)], dim=1),
        place=_places(kind, order),
        position=torch.cat([columns.position, pad_sequence(given, batch_first=True)], dim=1),
    )


def causal_mask(queries: Columns, keys: Columns, dtype: torch.dtype) -> Tensor | None:
    """Additive mask (B, 1, Q, S), or None if the plain causal mask is equivalent.

    A GONE query sees the columns that take part: an empty row would give NaN.
    """
    columns = torch.arange(keys.kind.shape[1], device=keys.kind.device)
    if queries is keys and torch.equal(keys.place, columns.expand_as(keys.place)):
        return None
    seen = keys.seen[:, None] & (keys.place[:, None] <= queries.place[:, :, None])
    return additive(seen, dtype)


def additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """(B, Q, S) bool -> additive mask (B, 1, Q, S), 0 where seen."""
    mask = torch.zeros(seen.shape, dtype=dtype, device=seen.device)
    return mask.masked_fill_(~seen, torch.finfo(dtype).min)[:, None]


def _places(kind: Tensor, order: Tensor) -> Tensor:
    """Rank of each column: text and images that alternate, then AFTER, then GONE.

    Within each of the three, columns are ranked by `order`, whose values are below S.
    """
    key = kind.clamp(min=VISUAL) * kind.shape[1] + order
    return key.argsort(dim=1, stable=True).argsort(dim=1)
