"""CLIP's text tower beside a vision tower, for methods that compare patches with a question.

`text_tower` is an option of families whose vision tower is CLIP's: the folder or hub id of the
CLIP model that it was taken from, such as openai/clip-vit-large-patch14-336 for LLaVA-1.5 and
LLaVA-NeXT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad

from prunesid.core.costs import TextTower, Transformer
from prunesid.core.parameters import Param
from prunesid.images.relevance import ALIKE, mean_of_units

OPTION = Param(None, str, choices=None)


class ClipText:
    """A text tower and both projections into CLIP's space, in float32 as its authors run it."""

    def __init__(self, model: Any, tokenizer: Any) -> None:
        self._text, self._project = model.text_model, model.text_projection
        self._visual = model.visual_projection
        self._tokenizer = tokenizer
        config = model.config.text_config
        self._segment = config.max_position_embeddings
        self.sizes = TextTower(
            Transformer.encoder(config), self._segment, model.config.projection_dim
        )
        self._vectors: dict[str, Tensor] = {}

    @classmethod
    def load(cls, path: str | Path, vision: Any, device: torch.device) -> ClipText:
        """The text tower of the CLIP model at `path` (a folder or hub id).

        vision  configuration of the vision tower that it is to fit

        ValueError if there is no such model, or it has another vision tower.
        """
        from transformers import AutoTokenizer, CLIPConfig, CLIPModel

        try:
            own = CLIPConfig.from_pretrained(path).vision_config
        except OSError as error:
            raise ValueError(f"text_tower: no CLIP model at {path}: {error}") from error
        for name in ALIKE:
            if getattr(own, name) != getattr(vision, name):
                raise ValueError(
                    f"text_tower: {path} belongs to a vision tower of {name} "
                    f"{getattr(own, name)}, and this model's has {getattr(vision, name)}"
                )
        model: Any = CLIPModel.from_pretrained(path, dtype=torch.float32, use_safetensors=True)
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False)
        return cls(model.eval().to(device), tokenizer)

    @torch.no_grad()
    def vector(self, text: str) -> Tensor:
        """The question (C,) as `prunesid.images.relevance` compares it."""
        if text not in self._vectors:
            self._vectors[text] = mean_of_units(self.embed(text))
        return self._vectors[text]

    @torch.no_grad()
    def embed(self, text: str) -> Tensor:
        """The embeddings (S, C) of a text's segments of 77 tokens, the last padded and masked."""
        ids = torch.tensor(self._tokenizer(text)["input_ids"])
        mask, rest = torch.ones_like(ids), -len(ids) % self._segment
        device = self._project.weight.device
        segments = (pad(each, (0, rest)).view(-1, self._segment).to(device) for each in (ids, mask))
        pooled = self._text(**dict(zip(("input_ids", "attention_mask"), segments, strict=True)))
        return self._project(pooled.pooler_output)

    @torch.no_grad()
    def join(self, tower: Any, features: Tensor) -> Tensor:
        """A vision tower's features of patches (B, T, D) -> (B, T, C) in CLIP's space, float32."""
        norm = tower.post_layernorm
        return self._visual(norm(features.to(norm.weight)).float())
