"""Pocket-Mini-Gemini's architecture, start values and processor."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlavaForConditionalGeneration
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from prunesid.families.mini_gemini import (
    MiniGeminiConfig,
    MiniGeminiForConditionalGeneration,
    MiniGeminiProcessor,
)
from prunesid.pocket import WEIGHTS
from prunesid.pocket.model import GRID, IMAGE_SIZE, MEAN, STD, build_tokenizer

SIDE = 2 * IMAGE_SIZE  # px of the high-resolution image
# 96 x 96 cells of 7 px, so 4 x 4 for each of the 576 patches.
TRUNK = {
    "hidden_sizes": [48, 64, 64, 64],
    "depths": [2, 2, 1, 1],
    "patch_size": 7,
    "layer_scale_init_value": 0.5,
}
SCALE = 16  # a power of two, so that no weight is rounded
NEURONS = 448  # of each of the language model's MLPs, which have 512 in Pocket-LLaVA


def _smaller_mlps(state: dict[str, Tensor], neurons: int) -> dict[str, Tensor]:
    """A LLaMA's weights with the `neurons` of each MLP whose weights have the largest norms."""
    state = dict(state)
    for name in [name for name in state if name.endswith(".down_proj.weight")]:
        names = [name, *(name.replace("down", part) for part in ("gate", "up"))]
        down, gate, up = (state[n] for n in names)
        size = down.norm(dim=0) * gate.norm(dim=1) * up.norm(dim=1)
        kept = size.argsort(descending=True)[:neurons].sort().values
        state |= zip(names, (down[:, kept], gate[kept], up[kept]), strict=True)
    return state


@torch.no_grad()
def _renormalize(tower: Any, mean: list[float], std: list[float]) -> None:
    """Make a tower for pixels normalized with MEAN and STD take pixels of another `mean`, `std`.

    What the patch embedding, which has no bias, cannot absorb goes to the positions.
    """
    weight = tower.embeddings.patch_embedding.weight
    shift = (torch.tensor(mean) - MEAN) / STD
    constant = torch.einsum("oihw,i->o", weight, shift)
    tower.embeddings.position_embedding.weight[1:] += constant
    weight *= (torch.tensor(std) / STD)[:, None, None]


@torch.no_grad()
def _rescale(tower: Any, projector: Any) -> None:
    """Divide what the tower's blocks add up by SCALE, and multiply the projector with it.

    Every block normalizes what it reads, so nothing else changes. Pocket-LLaVA's features are some
    16 times as large as what is mined for them at first.
    """
    writers = [part for b in tower.encoder.layers for part in (b.self_attn.out_proj, b.mlp.fc2)]
    for part in (tower.pre_layrnorm, *writers):
        part.weight /= SCALE
        part.bias /= SCALE
    projector.linear_1.weight *= SCALE


@torch.no_grad()
def _start_values(part: nn.Module) -> None:
    # transformers' are for pretraining: too small to learn from in a few hundred steps.
    for module in part.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            module.reset_parameters()


def build_model(start: Path = WEIGHTS, seed: int = 0) -> MiniGeminiForConditionalGeneration:
    """The model before its training (fp32): tower, projector and language model of `start`.

    start  a LLaVA-1.5 model's folder, by default Pocket-LLaVA's weights
    """
    old: Any = LlavaForConditionalGeneration.from_pretrained(start, dtype=torch.float32)
    parts = old.config.to_dict()
    text = parts["text_config"] | {"intermediate_size": NEURONS}
    config = MiniGeminiConfig(
        vision_config=parts["vision_config"], text_config=text, aux_config=TRUNK,
        image_size_aux=SIDE, image_token_index=text["vocab_size"], vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=GRID * GRID,
        tie_word_embeddings=True,
    )  # fmt: skip
    config.pad_token_id = old.config.pad_token_id
    torch.manual_seed(seed)
    model: Any = MiniGeminiForConditionalGeneration(config)
    inner = model.model
    inner.vision_tower.load_state_dict(old.model.vision_tower.state_dict())
    inner.multi_modal_projector.load_state_dict(old.model.multi_modal_projector.state_dict())
    inner.language_model.load_state_dict(
        _smaller_mlps(old.model.language_model.state_dict(), NEURONS)
    )
    _renormalize(inner.vision_tower, OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
    _rescale(inner.vision_tower, inner.multi_modal_projector)
    for part in (inner.vision_tower_aux, inner.mining):
        _start_values(part)
    model.generation_config = old.generation_config
    model.tie_weights()
    return model


def build_processor(config: MiniGeminiConfig) -> MiniGeminiProcessor:
    """Mini-Gemini's images, with Pocket-LLaVA's words.

    Most words of Vicuna's system prompt are unknown to it; the model is trained behind them.
    """
    return MiniGeminiProcessor(config, build_tokenizer(2048))
