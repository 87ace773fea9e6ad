"""What every model family offers to the rest of the library."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.accounting import Sizes
    from prunesid.record import VisionRecord


@dataclass(frozen=True)
class Prompt:
    """Token ids on either side of an image's visual tokens."""

    before: tuple[int, ...]
    after: tuple[int, ...]

    @property
    def text_tokens(self) -> int:
        """How many they are."""
        return len(self.before) + len(self.after)


class Adapter(Protocol):
    """Shapes: B images, T visual tokens of width D, language model of width E."""

    device: torch.device
    dtype: torch.dtype
    num_tokens: int
    """T: visual tokens per image before compression."""
    grid: tuple[int, int]
    """Rows and columns of the patches."""
    num_blocks: int
    """Blocks of the vision tower."""
    feature_block: int
    """0-based block whose output is the model's usual visual feature."""
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    sizes: Sizes
    """What the cost of a prompt depends on."""
    decoder: Any
    """The language model's own decoder, for methods that drop tokens inside it."""

    def preprocess(self, images: Sequence[Image]) -> torch.Tensor:
        """PIL images -> pixel values (B, 3, height, width)."""
        ...

    def encode(
        self,
        pixels: torch.Tensor,
        *,
        layers: Collection[int] = (),
        cls_attention: bool = True,
        keys: bool = False,
        projected: bool = False,
        last_attention: bool = False,
        last_keys: bool = False,
        image_ids: Sequence[str] | None = None,
    ) -> VisionRecord:
        """Pixel values -> what the vision tower leaves behind, `layers` (0-based) in `hidden`.

        The other arguments name the optional fields of the record that are wanted; CLS always is.
        """
        ...

    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        """Visual tokens (..., D) -> language model inputs (..., E)."""
        ...

    def prompt(self, context: str) -> Prompt:
        """One image and a question in the model's chat format, ready for the answer."""
        ...

    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        """Token ids (...) -> language model inputs (..., E)."""
        ...

    def new_cache(self) -> Any:
        """An empty KV cache, to be handed to `run`."""
        ...

    def run(
        self,
        embeddings: torch.Tensor,
        cache: Any,
        *,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Decoder over (B, S, E), appending to `cache` -> final hidden states (B, S, E).

        `mask` is additive, (B, 1, S, cached + S); without it the block is causal. `positions` is
        (B, S) int64; without it they follow the cache's length.
        """
        ...

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Final hidden states (..., E) -> logits (..., vocabulary)."""
        ...

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids -> text, special tokens left out."""
        ...

    def generate(self, tokens: torch.Tensor, prompt: Prompt, max_new_tokens: int) -> list[int]:
        """The model's own greedy `generate()` on visual tokens (N, D): ids of one answer."""
        ...
