"""Mini-Gemini as a transformers model: a LLaVA whose patches also look at a sharper image.

The image path as the authors' release has it for `image_grid` 1 without a global image: CLIP's
patches are the queries, the ConvNeXt trunk's cells the keys and values of patch info mining, and
what was mined is added to the patches before the projector.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModel, Cache, PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.models.llava.modeling_llava import (
    LlavaForConditionalGeneration,
    LlavaModel,
    LlavaMultiModalProjector,
    LlavaPreTrainedModel,
)

from prunesid.families.mini_gemini.checkpoint import listed, read_published
from prunesid.families.mini_gemini.configuration import MiniGeminiConfig, is_published
from prunesid.families.mini_gemini.convnext import ConvNextTrunk
from prunesid.families.mini_gemini.mining import PatchInfoMining


class MiniGeminiModel(LlavaModel):
    """Towers, mining, projector and decoder, without the language modeling head."""

    config: MiniGeminiConfig

    def __init__(self, config: MiniGeminiConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        cells = config.image_size_aux // config.aux_config.patch_size
        if cells % config.grid:
            raise ValueError(
                f"image_size_aux {config.image_size_aux} makes {cells} cells per side, which "
                f"{config.grid} patches cannot share evenly"
            )
        self.vision_tower = AutoModel.from_config(config.vision_config)
        self.vision_tower_aux = ConvNextTrunk(config.aux_config)
        self.mining = PatchInfoMining(
            config.vision_config.hidden_size, sum(config.aux_config.hidden_sizes)
        )
        self.multi_modal_projector = LlavaMultiModalProjector(config)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def patches(self, pixel_values: Tensor) -> Tensor:
        """Low-resolution images (B, 3, S, S) -> CLIP's patches (B, N, D), CLS removed."""
        seen = self.vision_tower(pixel_values, output_hidden_states=True).hidden_states
        return seen[self.config.vision_feature_layer][:, 1:]

    def mine(self, patches: Tensor, pixel_values_aux: Tensor) -> Tensor:
        """Patches (B, N, D), high-resolution images -> the final image tokens (B, N, D).

        They are what the projector gets and what pruning compresses.
        """
        return patches + self.mining(patches, self.vision_tower_aux(pixel_values_aux))

    def mine_together(self, tokens: Tensor, holder: Tensor, pixel_values_aux: Tensor) -> Tensor:
        """As `mine`, of tokens (B, N, D); `holder` (B, T) is the token that holds each patch."""
        cells = self.vision_tower_aux(pixel_values_aux)
        return tokens + self.mining.together(tokens, holder, cells)

    def get_image_features(
        self, pixel_values: Tensor, pixel_values_aux: Tensor | None = None, **kwargs: Any
    ) -> BaseModelOutputWithPooling:
        """`pooler_output`: the projected tokens (N, E) of each image."""
        if pixel_values_aux is None:
            raise ValueError("Mini-Gemini needs pixel_values_aux, the high-resolution images")
        tokens = self.mine(self.patches(pixel_values), pixel_values_aux)
        projected: Any = list(self.multi_modal_projector(tokens))
        return BaseModelOutputWithPooling(last_hidden_state=tokens, pooler_output=projected)

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_aux: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `LlavaModel.forward`; images come with `input_ids` that hold their placeholders."""
        seen = (mm_encoder_outputs or {}).get("image")
        if pixel_values is not None:
            if seen is not None:
                raise ValueError("give pixel_values or mm_encoder_outputs, not both")
            seen = self.get_image_features(pixel_values, pixel_values_aux)
        if inputs_embeds is None and input_ids is not None:
            inputs_embeds = self._embedded(input_ids, seen)
        elif seen is not None:
            raise ValueError("give images with input_ids; inputs_embeds hold them already")
        return super().forward(inputs_embeds=inputs_embeds, **kwargs)

    def _embedded(self, ids: Tensor, seen: BaseModelOutputWithPooling | None) -> Tensor:
        """Token ids (B, S) -> embeddings (B, S, E), the images' tokens at their placeholders."""
        places = ids == self.config.image_token_id
        # The placeholder has no embedding; what stands in for it is overwritten.
        embeddings = self.get_input_embeddings()(ids.masked_fill(places, 0))
        tokens = list([] if seen is None else seen.pooler_output)  # type: ignore[arg-type]
        count = sum(map(len, tokens))
        # While decoding there is one token per row, which the head chose from the vocabulary.
        if (tokens or ids.shape[1] > 1) and (wanted := int(places.sum())) != count:
            raise ValueError(f"the prompt has {wanted} image tokens, the images have {count}")
        if not tokens:
            return embeddings
        return embeddings.masked_scatter(places[..., None], torch.cat(tokens).to(embeddings))


class MiniGeminiForConditionalGeneration(LlavaForConditionalGeneration):
    """Generates text about images; `from_pretrained` reads published checkpoints as well."""

    config_class = MiniGeminiConfig
    config: MiniGeminiConfig

    def __init__(self, config: MiniGeminiConfig) -> None:
        LlavaPreTrainedModel.__init__(self, config)
        self.model = MiniGeminiModel(config)
        text = config.text_config
        self.lm_head = nn.Linear(text.hidden_size, text.vocab_size, bias=False)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        pixel_values_aux: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int | Tensor = 0,
        mm_encoder_outputs: dict[str, BaseModelOutputWithPooling] | None = None,
        **kwargs: Any,
    ) -> Any:
        """As `LlavaForConditionalGeneration.forward`, with the high-resolution images."""
        if pixel_values_aux is not None:
            kwargs["pixel_values_aux"] = pixel_values_aux
        return super().forward(
            input_ids=input_ids,
            pixel_values=pixel_values,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            labels=labels,
            logits_to_keep=logits_to_keep,
            mm_encoder_outputs=mm_encoder_outputs,
            **kwargs,
        )

    @classmethod
    def from_pretrained(  # type: ignore[override]
        cls,
        path: str | Path,
        *,
        vision_tower: str | Path | None = None,
        vision_tower_aux: str | Path | None = None,
        **kwargs: Any,
    ) -> Any:
        """A model that `save_pretrained` wrote, or a published checkpoint (folder or hub id).

        Only safetensors are read, and missing and unexpected tensors are errors. `vision_tower` and
        `vision_tower_aux` say where a published checkpoint's towers are (folder or hub id) if the
        paths in its `config.json` do not. The rest is as in transformers.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        kwargs["use_safetensors"] = True
        raw, _ = PreTrainedConfig.get_config_dict(path)
        source: str | Path | None = path
        published = None
        if is_published(raw):
            published = read_published(path, raw, cls._shapes, vision_tower, vision_tower_aux)
            kwargs["config"] = MiniGeminiConfig.from_dict(published.config)
            kwargs["state_dict"], source = published.tensors, None
        elif vision_tower is not None or vision_tower_aux is not None:
            raise ValueError(f"{path} holds its towers: vision_tower(_aux) have no use")
        loaded: Any = super().from_pretrained(source, output_loading_info=True, **kwargs)
        model, info = loaded
        problems = {kind: info[f"{kind}_keys"] for kind in ("missing", "unexpected")}
        if any(problems.values()):
            raise ValueError(f"{path} does not fit the model: {listed(problems)}")
        if published is not None:
            for name, value in published.ends.items():
                setattr(model.generation_config, name, value)
        return (model, info) if wants_info else model

    @classmethod
    def _shapes(cls, config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
        with torch.device("meta"):
            model = cls(MiniGeminiConfig.from_dict(config))
        return {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
