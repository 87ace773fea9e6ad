"""Qwen3-VL (transformers' `Qwen3VLForConditionalGeneration`).

As Qwen2-VL, but for two things. Further mergers of its tower make embeddings of the same tokens,
which the language model adds to them after its first layers (deep-stack): tokens carry them as
further channels, `VisionRecord.carried`, so that they go, and are averaged, with their token. And
before every temporal patch of a clip stands its time as text: a clip enters in as many parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import DynamicCache
from transformers.models.qwen3_vl.modeling_qwen3_vl import BaseModelOutputWithDeepstackFeatures

from prunesid.families import register
from prunesid.families.adapter import Crop, Entering, Prompt
from prunesid.families.inputs.images_and_clips import Media
from prunesid.families.inputs.qwen3 import SECONDS, preprocess
from prunesid.families.qwen2_vl import Qwen2VL
from prunesid.images.medium import VIDEO


@register("qwen3_vl")
class Qwen3VL(Qwen2VL):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        self.width = model.config.text_config.hidden_size
        self.further = self.width * len(self.tower.deepstack_merger_list)
        self.start = model.config.vision_start_token_id
        self.end = model.config.vision_end_token_id

    def preprocess(self, media: Media) -> dict[str, Tensor]:
        return preprocess(self.processor, media)

    def seconds(self, inputs: Mapping[str, Tensor]) -> Sequence[Any]:
        """Times of the temporal patches of each clip, where the prompt does not hold them."""
        frames = inputs["video_grid_thw"][:, 0].tolist()
        if SECONDS not in inputs:
            return [None] * len(frames)
        return [own.tolist() for own in inputs[SECONDS].split(frames)]

    def embed(self, ids: Tensor) -> Tensor:
        return F.pad(self.words(ids), (0, self.further))

    @torch.no_grad()
    def run(
        self,
        embeddings: Tensor,
        cache: DynamicCache,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        first, *later = embeddings.split(self.width, dim=2)
        everywhere = torch.ones(first.shape[:2], dtype=torch.bool, device=first.device)
        return self.decoder(
            inputs_embeds=first,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            visual_pos_masks=everywhere,
            deepstack_visual_embeds=[each.flatten(0, 1) for each in later],
        ).last_hidden_state

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        found = {}
        for kind, own in media.items():
            apart = [tokens.split(self.width, dim=1) for tokens in own]
            layers: list[Any] = [list(layer) for layer in zip(*apart, strict=True)]
            found[kind] = BaseModelOutputWithDeepstackFeatures(
                pooler_output=layers[0], deepstack_features=layers[1:]
            )
        return found

    def parts(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> list[Entering]:
        """Every temporal patch of a clip by itself, after its time and between its own marks."""
        if layout["kind"] != VIDEO:
            return [self.enter(crops, layout)]
        single = {**layout, "grid_thw": [1, *layout["grid_thw"][1:]], "seconds": None}
        times = layout["seconds"]
        texts = [()] * len(crops) if times is None else map(self._time, times)
        found = [
            replace(self.enter([crop], single), before=(*text, self.start))
            for crop, text in zip(crops, texts, strict=True)
        ]
        return [
            found[0],
            *(replace(part, before=(self.end, *part.before), continues=True) for part in found[1:]),
        ]

    def _time(self, seconds: float) -> tuple[int, ...]:
        return tuple(self.plain_ids(f"<{seconds:.1f} seconds>"))

    def _tokenize(self, context: str, kinds: Sequence[str]) -> Prompt:
        """The marks around a clip go to its parts, as in the authors' processor."""
        texts = [list(text) for text in super()._tokenize(context, kinds).texts]
        for place, kind in enumerate(kinds):
            before, after = texts[place], texts[place + 1]
            if kind == VIDEO and before[-1:] == [self.start] and after[:1] == [self.end]:
                before.pop()
            elif kind == VIDEO:
                after.insert(0, self.end)
        return Prompt(tuple(map(tuple, texts)))
