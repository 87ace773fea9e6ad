"""Prompts, and media on their way from a method into the language model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from prunesid.core.delayed import Tensor, torch
from prunesid.core.record import GRID, PLACE
from prunesid.images.medium import Medium

if TYPE_CHECKING:
    from prunesid.core.record import Kept


@dataclass(frozen=True)
class Prompt:
    """Token ids around the media of a question, in order: one text more than there are media."""

    texts: tuple[tuple[int, ...], ...]

    @property
    def before(self) -> tuple[tuple[int, ...], ...]:
        """The texts before the last medium and between media."""
        return self.texts[:-1]

    @property
    def after(self) -> tuple[int, ...]:
        """The text after the last medium."""
        return self.texts[-1]

    @property
    def text_tokens(self) -> int:
        """The number of token ids."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, eq=False)
class Crop:
    """The kept tokens of a crop or frame.

    tokens  (n, D)
    index   (n,) the patch of each, below 0 for none, as in `Kept`
    grid    rows and columns that the tokens fill, where they are those of a smaller image
    place   (n,) of each among the tokens of all crops; None if they stand crop after crop
    """

    tokens: Tensor
    index: Tensor
    grid: tuple[int, int] | None = None
    place: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Entering:
    """The input of the language model for one medium.

    embeddings  (N, E) as the projector, and whatever the family puts between crops, give them;
                more channels where later layers of the language model add to them (`Adapter.embed`)
    positions   (3, N) int64 rotary positions from the first visual token's on (time, row, column);
                None if they are 0..N-1
    span        how far the text after the medium moves on in position; N where they are
    before      tokens of text that the medium brings: before it, after those of the prompt
    continues   whether it is a later part of the medium before it, with no text of the prompt
                between them
    source      (N,) int64 the place of each among the medium's kept tokens, crop after crop; below
                0 for newlines and text. None if they are those tokens in their order
    """

    embeddings: Tensor
    positions: Tensor | None = None
    span: int | None = None
    before: tuple[int, ...] = ()
    continues: bool = False
    source: Tensor | None = None

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def step(self) -> int:
        return len(self) if self.span is None else self.span


def kept_crops(kept: Kept, medium: Medium) -> list[Crop]:
    """The kept tokens of each crop of a medium, without padding."""
    rows = list(medium.rows)
    counts = kept.count[rows].tolist()
    grids = kept.info[GRID][rows].tolist() if GRID in kept.info else [None] * len(rows)
    places = kept.info.get(PLACE)
    return [
        Crop(
            kept.tokens[row, :count],
            kept.index[row, :count],
            None if grid is None else (grid[0], grid[1]),
            None if places is None else places[row, :count],
        )
        for row, count, grid in zip(rows, counts, grids, strict=True)
    ]


def around(texts: Sequence[Sequence[int]], entering: Sequence[Entering]) -> list[tuple[int, ...]]:
    """A prompt's texts around its media -> those around all that enters: media, or their parts.

    One more than what enters, or as many where the text after the last medium is left out.
    """
    prompts = iter(texts)
    found = [(*(() if part.continues else next(prompts)), *part.before) for part in entering]
    return [*found, *map(tuple, prompts)]


def positions_of(texts: Sequence[int], media: Sequence[Entering]) -> tuple[Tensor, int]:
    """Rotary positions of texts (by their lengths) and media that take turns, text first.

    Returns (3, S) int64 and the position that follows; the three are the same for text.
    """
    parts, place = [torch.zeros(3, 0, dtype=torch.int64)], 0
    for number, length in enumerate(texts):
        parts.append(torch.arange(place, place + length).expand(3, -1))
        place += length
        if number < len(media):
            medium = media[number]
            own = medium.positions
            own = torch.arange(len(medium)).expand(3, -1) if own is None else own.cpu()
            parts.append(place + own)
            place += medium.step
    return torch.cat(parts, dim=1), place
