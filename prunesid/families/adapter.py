"""What every model family offers to the rest of the library."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from prunesid.core.needs import Needs
from prunesid.core.record import GRID, PLACE
from prunesid.images.records import Medium

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.core.costs import Sizes
    from prunesid.core.record import Kept
    from prunesid.images.media import Clip
    from prunesid.images.records import Records
    from prunesid.methods.encoder import Plans


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
        """The text behind the last medium."""
        return self.texts[-1]

    @property
    def text_tokens(self) -> int:
        """How many they are."""
        return sum(map(len, self.texts))


@dataclass(frozen=True, eq=False)
class Crop:
    """What is kept of a crop or frame.

    tokens  (n, D)
    index   (n,) the patch of each, below 0 for none, as in `Kept`
    grid    rows and columns that the tokens fill, where they are those of a smaller image
    place   (n,) of each among the tokens of all crops; None where they stand crop after crop
    """

    tokens: Tensor
    index: Tensor
    grid: tuple[int, int] | None = None
    place: Tensor | None = None


@dataclass(frozen=True, eq=False)
class Entering:
    """What enters the language model for one medium.

    embeddings  (N, E) as the projector, and whatever the family puts between crops, give them; of more
                channels where later layers of the language model add to them (`Adapter.embed`)
    positions   (3, N) int64 rotary positions from the first visual token's on (time, row, column);
                None where they are 0..N-1
    span        how far the position of the text behind the medium moves on; N where they are
    before      tokens of text that the medium brings, in front of it and after that of the prompt
    continues   whether it is a later part of the same medium as the one before it, so that no text of
                the prompt stands between them
    """

    embeddings: Tensor
    positions: Tensor | None = None
    span: int | None = None
    before: tuple[int, ...] = ()
    continues: bool = False

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def step(self) -> int:
        return len(self) if self.span is None else self.span


def kept_crops(kept: Kept, medium: Medium) -> list[Crop]:
    """What is kept of the crops of a medium, without padding."""
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
    found = [
        (*(() if part.continues else next(prompts)), *part.before) for part in entering
    ]  # fmt: skip
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


class Adapter(Protocol):
    """Shapes: T visual tokens of width D, language model of width E, batches of B."""

    device: torch.device
    dtype: torch.dtype
    num_blocks: int
    """Blocks of the vision tower."""
    feature_block: int
    """0-based block whose output is the model's usual visual feature."""
    num_tokens: int | None
    """Visual tokens of an image before compression; None where they depend on its size."""
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    sizes: Sizes
    """What the cost of a prompt depends on."""
    decoder: Any
    """The language model's own decoder, for methods that drop tokens inside it."""
    placeholders: Mapping[str, int]
    """Kind of medium ("image", "video") -> the token that stands for it in a prompt."""
    taken_as: Mapping[str, str]
    """Kind of medium -> the one in the place of which the model takes it, where it does."""
    text_tower: Any
    """CLIP's, which compares patches with a question; None where the model was loaded without."""

    def pictures(self, media: Sequence[Image | Clip]) -> list[Image]:
        """Images as RGB, padded where the family pads; its processor does the rest.

        ValueError where one is a clip.
        """
        ...

    def preprocess(self, media: Sequence[Image | Clip]) -> dict[str, Tensor]:
        """Images and clips -> the model's inputs, as its processor makes them of `pictures`."""
        ...

    def of_prompts(
        self, ids: Tensor, visual: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Prompts (B, S) and visual inputs that the model's processor made, ready for `encode`.

        Every medium is one run of its kind's placeholder in the ids, and the inputs say which medium
        everything is of.
        """
        ...

    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = ...,
        names: Sequence[str] | None = None,
    ) -> Records:
        """The model's inputs -> what the vision tower leaves behind.

        needs  optional fields of the records that are wanted; CLS always comes where there is one.
               In place of relevance, which is a question's, comes what it is computed from
               (`prunesid.images.relevance`)
        names  input that each medium belongs to, those of one input next to each other; without
               them every medium is an input named by its number, and random choices depend on the
               content of its features
        """
        ...

    def plans(self, method: str, budget: int, params: Mapping[str, object]) -> Plans:
        """`prunesid.methods.encoder.plans` for this model; ValueError also where the family takes none."""
        ...

    def reduce(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None = None
    ) -> tuple[Kept, Records]:
        """The model's inputs -> what a pass by `plans` leaves, and the outline of the records.

        `names` as in `encode`; rows, inputs and sizes are those of its records, features are zeros.
        ValueError where the family takes none.
        """
        ...

    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        """What is kept of a medium's crops -> what enters the language model.

        A medium of which everything is kept enters as the unmodified model has it.
        """
        ...

    def parts(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> list[Entering]:
        """The same, in parts where a family has text within a medium."""
        ...

    def text(self, context: str, kinds: Sequence[str]) -> str:
        """A question on media of these kinds in the model's conversation, ready for the answer.

        A mark stands where each medium goes: where the context has none, before it, a line each.
        """
        ...

    def prompt(self, context: str, kinds: Sequence[str]) -> Prompt:
        """The token ids of `text`."""
        ...

    def question(self, encoder: str, context: str, kinds: Sequence[str]) -> Tensor:
        """A question on media of these kinds as the vector (C,) that patches are compared with.

        encoder  CLIP or EMBEDDINGS, see `prunesid.images.relevance`; ValueError for CLIP without a text tower
        """
        ...

    def question_of(self, ids: Sequence[int]) -> Tensor:
        """The same by EMBEDDINGS, from the tokens of the whole prompt; placeholders do not count."""
        ...

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...) -> language model inputs (..., E).

        Of a family whose later layers add to tokens (..., E + X): behind the E channels those that are
        added after the first layer, after the second and so on.
        """
        ...

    def new_cache(self) -> Any:
        """An empty KV cache, to be handed to `run`."""
        ...

    def run(
        self,
        embeddings: Tensor,
        cache: Any,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Decoder over what `embed` gives, (B, S, E), appending to `cache` -> final hidden states.

        `mask` is additive, (B, 1, S, cached + S); without it the block is causal. `positions` is
        (B, S) int64, or (3, B, S) for a decoder with three; without it they follow the cache's
        length.
        """
        ...

    def logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states (..., E) -> logits (..., vocabulary)."""
        ...

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        """{kind: what enters (N, E) for each of its media} -> the model's `mm_encoder_outputs`."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids -> text, special tokens left out."""
        ...

    def generate(self, media: Sequence[Entering], prompt: Prompt, max_new_tokens: int) -> list[int]:
        """The model's own greedy `generate()`: ids of one answer."""
        ...
