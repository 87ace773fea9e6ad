"""LLaVA (transformers' `LlavaForConditionalGeneration`): LLaVA-1.5 and Pocket-LLaVA.

Needs transformers >= 5.18 (`mm_encoder_outputs`). Only CLIP towers whose CLS token is dropped
(`vision_feature_select_strategy="default"`) and a single feature layer are supported.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor, DynamicCache, LlavaForConditionalGeneration
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunesid.accounting import Sizes, Transformer
from prunesid.models import register
from prunesid.models.adapter import Prompt
from prunesid.models.hooks import outputs, split_heads
from prunesid.record import VisionRecord

if TYPE_CHECKING:
    from PIL.Image import Image


@register("llava")
class Llava:
    """Adapter; see `prunesid.models.Adapter` for the shapes."""

    def __init__(self, model: Any, processor: Any) -> None:
        config = model.config
        _refuse_unsupported(config)
        self.model = model.eval()
        self.processor = processor
        self.device, self.dtype = model.device, model.dtype
        self.decoder = model.model.language_model
        self.num_blocks = config.vision_config.num_hidden_layers
        # hidden_states[i] is the input of block i, so its producer is block i - 1.
        states = self.num_blocks + 1
        self.feature_block = config.vision_feature_layer % states - 1
        side = config.vision_config.image_size // config.vision_config.patch_size
        self.grid, self.num_tokens = (side, side), side * side
        self.sizes = Sizes(
            Transformer.decoder(config.text_config),
            Transformer.encoder(config.vision_config),
            encoder_tokens=1 + self.num_tokens,
        )
        ends = model.generation_config.eos_token_id
        self.end_ids = frozenset([ends] if isinstance(ends, int) else ends or ())
        self._image_id = config.image_token_id
        # Every arm asks the same questions.
        self._prompts: dict[str, Prompt] = {}

    @classmethod
    def load(cls, path: str | Path, device: torch.device, dtype: torch.dtype) -> Llava:
        """Weights and processor from `path`; attention runs on SDPA."""
        model: Any = LlavaForConditionalGeneration.from_pretrained(
            path, dtype=dtype, attn_implementation="sdpa", use_safetensors=True
        )
        return cls(model.to(device), AutoProcessor.from_pretrained(path))

    def preprocess(self, images: Sequence[Image]) -> torch.Tensor:
        pictures = [image.convert("RGB") for image in images]
        return self.processor.image_processor(pictures, return_tensors="pt")["pixel_values"]

    @torch.no_grad()
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
        """One pass of the tower; block outputs, queries and keys come from forward hooks.

        Hooks keep the tower on SDPA, which returns no attention maps; the CLS row recomputed here
        equals eager attention to 1e-5.
        """
        beyond = [layer for layer in layers if not 0 <= layer < self.num_blocks]
        if beyond:
            raise ValueError(f"layers {beyond} are not among 0..{self.num_blocks - 1}")
        tower = self.model.model.vision_tower
        feature_block = tower.encoder.layers[self.feature_block]
        wanted = {f"hidden {i}": tower.encoder.layers[i] for i in {*layers, self.feature_block}}
        if cls_attention:
            wanted["query"] = feature_block.self_attn.q_proj
        if cls_attention or keys:
            wanted["key"] = feature_block.self_attn.k_proj
        last_block = tower.encoder.layers[self.num_blocks - 1]
        if last_attention:
            wanted["last query"] = last_block.self_attn.q_proj
        if last_attention or last_keys:
            wanted["last key"] = last_block.self_attn.k_proj
        with outputs(wanted) as seen:
            tower(pixels.to(self.device, self.dtype))
        features = seen[f"hidden {self.feature_block}"]
        heads = feature_block.self_attn.num_heads
        key = split_heads(seen["key"], heads) if "key" in seen else None
        row = None
        if cls_attention and key is not None:
            query = split_heads(seen["query"], heads)[:, :, :1]
            scores = query @ key.transpose(-1, -2) * feature_block.self_attn.scale
            row = scores.softmax(-1, dtype=torch.float32)[:, :, 0, 1:]
        last_key = seen.get("last key")
        last_row = None
        if last_attention and last_key is not None:
            # One head of full width sums many products: in float32 whatever the model's dtype.
            last_query = seen["last query"][:, :1].float() * last_key.shape[-1] ** -0.5
            scores = last_query @ last_key.float().transpose(-1, -2)
            last_row = scores.softmax(-1)[:, 0, 1:]
        return VisionRecord(
            features=features[:, 1:],
            cls=features[:, 0],
            cls_attention=row,
            keys=key[:, :, 1:] if keys and key is not None else None,
            projected=self.project(features[:, 1:]) if projected else None,
            last_attention=last_row,
            last_keys=last_key[:, 1:] if last_keys and last_key is not None else None,
            hidden={layer: seen[f"hidden {layer}"][:, 1:] for layer in layers},
            grid=self.grid,
            image_ids=None if image_ids is None else tuple(image_ids),
        )

    @torch.no_grad()
    def project(self, tokens: torch.Tensor) -> torch.Tensor:
        return self.model.model.multi_modal_projector(tokens.to(self.device, self.dtype))

    def prompt(self, context: str) -> Prompt:
        if context not in self._prompts:
            self._prompts[context] = self._tokenize(context)
        return self._prompts[context]

    def _tokenize(self, context: str) -> Prompt:
        placeholder = self.processor.image_token
        # Some tasks place the image themselves; then the text is taken as it stands.
        content: list[dict[str, str]] = [{"type": "text", "text": context}]
        if placeholder not in context:
            content.insert(0, {"type": "image"})
        text = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
        ids = self.processor.tokenizer(text)["input_ids"]
        places = [place for place, token in enumerate(ids) if token == self._image_id]
        if len(places) != 1:
            raise ValueError(
                f"a prompt needs exactly one image, this one has {len(places)}: {text}"
            )
        return Prompt(before=tuple(ids[: places[0]]), after=tuple(ids[places[0] + 1 :]))

    @torch.no_grad()
    def embed(self, ids: torch.Tensor) -> torch.Tensor:
        return self.model.get_input_embeddings()(ids.to(self.device))

    def new_cache(self) -> DynamicCache:
        return DynamicCache(config=self.model.config)

    @torch.no_grad()
    def run(
        self,
        embeddings: torch.Tensor,
        cache: DynamicCache,
        *,
        mask: torch.Tensor | None = None,
        positions: torch.Tensor | None = None,
    ) -> torch.Tensor:
        return self.model.model.language_model(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    @torch.no_grad()
    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.model.lm_head(hidden)

    def decode(self, ids: Sequence[int]) -> str:
        return self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)

    @torch.no_grad()
    def generate(self, tokens: torch.Tensor, prompt: Prompt, max_new_tokens: int) -> list[int]:
        ids = [*prompt.before, *[self._image_id] * len(tokens), *prompt.after]
        inputs = torch.tensor([ids], device=self.device)
        projected: Any = [self.project(tokens)]
        visual = BaseModelOutputWithPooling(pooler_output=projected)
        output = self.model.generate(
            input_ids=inputs,
            attention_mask=torch.ones_like(inputs),
            mm_encoder_outputs={"image": visual},
            do_sample=False,
            num_beams=1,
            max_new_tokens=max_new_tokens,
        )
        return output[0, len(ids) :].tolist()


def _refuse_unsupported(config: Any) -> None:
    tower = config.vision_config.model_type
    if tower != "clip_vision_model":
        raise ValueError(f"the LLaVA adapter needs a clip_vision_model tower, not {tower}")
    strategy = config.vision_feature_select_strategy
    if strategy != "default":
        raise ValueError(f"vision_feature_select_strategy must be 'default', not {strategy!r}")
    layer = config.vision_feature_layer
    states = config.vision_config.num_hidden_layers + 1
    if not isinstance(layer, int) or not -states < layer < states or layer % states == 0:
        raise ValueError(f"vision_feature_layer must name one block's output, not {layer!r}")
