"""The adapter of Mini-Gemini.

Methods compress the 576 tokens that go to the projector: CLIP's patches with what they mined.
Everything else in the record (CLS, its attention, keys, other blocks) is the CLIP tower's. Methods
inside the encoder act in that tower; what is left mines for all patches that it holds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from prunesid.core.needs import Needs
from prunesid.core.parameters import Param
from prunesid.core.record import VisionRecord
from prunesid.families import register
from prunesid.families.inputs.conversations import VICUNA_V1
from prunesid.families.inputs.images_and_clips import Media
from prunesid.families.llava import Llava
from prunesid.families.mini_gemini.modeling import MiniGeminiForConditionalGeneration
from prunesid.families.mini_gemini.processing import MARK, MiniGeminiProcessor
from prunesid.families.towers.clip_pass import Reduced
from prunesid.families.towers.planned_crops import TowerInputs
from prunesid.images.medium import CENTER, PADDED

VICUNA_VOCABULARY = 32_000


@register("mini_gemini")
class MiniGemini(Llava):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    OPTIONS: ClassVar[Mapping[str, Param]] = {"text_tower": Llava.OPTIONS["text_tower"]}

    def __init__(self, model: Any, processor: MiniGeminiProcessor, **options: object) -> None:
        super().__init__(model, processor, **options)
        # The second tower is a convolutional network, for which there is no formula.
        self.sizes = replace(self.sizes, encoder=None)
        vocabulary = model.config.text_config.vocab_size
        if vocabulary > VICUNA_VOCABULARY:
            raise ValueError(
                f"the mini_gemini adapter asks in Vicuna's chat format (7B and 13B), and this "
                f"language model, with a vocabulary of {vocabulary}, is not a Vicuna"
            )

    @cached_property
    def conv_template(self) -> str:
        return VICUNA_V1

    @property
    def view(self) -> str:
        return PADDED if self.model.config.image_aspect_ratio == "pad" else CENTER

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device, dtype: torch.dtype, **options: object
    ) -> MiniGemini:
        """Weights and tokenizer from `path`, published or our own; attention runs on SDPA."""
        model = MiniGeminiForConditionalGeneration.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa"
        )
        return cls(model.to(device), MiniGeminiProcessor.of(model.config, path), **options)

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        return self.processor.images(self.pictures(media))

    def read(self, batch: TowerInputs, inputs: Mapping[str, Tensor], needs: Needs) -> VisionRecord:
        record = super().read(batch, inputs, needs)
        if needs.joint:
            # CLIP knows its own patches, not what is mined for them.
            record = replace(record, joint=self.join(record.features))
        sharp = inputs["pixel_values_aux"].to(self.device, self.dtype)
        return replace(record, features=self.model.model.mine(record.features, sharp))

    def finish(self, inputs: Mapping[str, Tensor], left: Reduced, rows: list[int]) -> Tensor:
        sharp = inputs["pixel_values_aux"][rows].to(self.device, self.dtype)
        return self.model.model.mine_together(left.kept.tokens, left.holder, sharp)

    def _mark(self, kind: str) -> str:
        # The published tokenizer has no token for it.
        return MARK
