"""Tiny random decoders of the real classes, and prompts for them."""

from __future__ import annotations

import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.models.qwen2_5_vl.configuration_qwen2_5_vl import Qwen2_5_VLTextConfig
from transformers.models.qwen2_5_vl.modeling_qwen2_5_vl import Qwen2_5_VLTextModel
from transformers.models.qwen2_vl.configuration_qwen2_vl import Qwen2VLTextConfig
from transformers.models.qwen2_vl.modeling_qwen2_vl import Qwen2VLTextModel
from transformers.models.qwen3_vl.configuration_qwen3_vl import Qwen3VLTextConfig
from transformers.models.qwen3_vl.modeling_qwen3_vl import Qwen3VLTextModel

from prunesid.generate.columns import AFTER, BEFORE, GONE, VISUAL, Columns

FAMILIES = {
    "llama": (LlamaConfig, LlamaForCausalLM, 4),
    "llama grouped": (LlamaConfig, LlamaForCausalLM, 2),
    "qwen2 grouped": (Qwen2Config, Qwen2ForCausalLM, 1),
}
QWEN3 = (Qwen3Config, Qwen3ForCausalLM, 2)
WIDTH = 32
WORDS = 50


class WithOutput(torch.nn.Module):
    """A decoder of a multimodal model with an output layer, as the others have it."""

    decoder: type[torch.nn.Module]

    def __init__(self, config):
        super().__init__()
        self.model = self.decoder(config)
        self.lm_head = torch.nn.Linear(WIDTH, WORDS, bias=False)
        torch.nn.init.normal_(self.lm_head.weight, std=0.02)


class Qwen2VL(WithOutput):
    decoder = Qwen2VLTextModel


class Qwen25VL(WithOutput):
    decoder = Qwen2_5_VLTextModel


class Qwen3VL(WithOutput):
    decoder = Qwen3VLTextModel


MROPE = {
    "qwen2_vl": (Qwen2VLTextConfig, Qwen2VL, 2),
    "qwen2_5_vl": (Qwen2_5_VLTextConfig, Qwen25VL, 1),
    "qwen3_vl": (Qwen3VLTextConfig, Qwen3VL, 2),
}
SECTIONS = [1, 2, 1]


def build(family="llama grouped", layers=6, dtype=torch.float64, seed=0):
    """A decoder with attention sharp enough that tokens differ."""
    config, model, kv_heads = {**FAMILIES, **MROPE, "qwen3": QWEN3}[family]
    rope = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": SECTIONS}
    rope |= {"mrope_interleaved": True} if family == "qwen3_vl" else {}
    torch.manual_seed(seed)
    found = model(
        config(
            vocab_size=WORDS, hidden_size=WIDTH, intermediate_size=48, num_hidden_layers=layers,
            num_attention_heads=4, num_key_value_heads=kv_heads, head_dim=8,
            attn_implementation="sdpa", bos_token_id=None, eos_token_id=None, pad_token_id=None,
            **({"rope_parameters": rope} if family in MROPE else {}),
        )
    )  # fmt: skip
    with torch.no_grad():
        for layer in found.model.layers:
            if family == "qwen3_vl":
                # What is normed has no scale of its own.
                layer.self_attn.q_norm.weight.mul_(4)
            layer.self_attn.q_proj.weight.mul_(12)
            layer.self_attn.k_proj.weight.mul_(12)
            layer.self_attn.o_proj.weight.mul_(8)
            layer.mlp.down_proj.weight.mul_(8)
        found.lm_head.weight.mul_(20)
    return found.to(dtype).eval()


def prompt(seed, before=3, visual=40, after=7, dtype=torch.float64):
    """Embeddings before, of and after an image."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(
        torch.randn(count, WIDTH, generator=generator, dtype=torch.float64).to(dtype)
        for count in (before, visual, after)
    )


def mrope(before, grid, after, gap=1):
    """(time, row, column) of every token of a prompt around a medium of (frames, rows, columns).

    `gap` is the time between frames.
    """
    frames, rows, columns = grid
    first_after = before + max(rows, columns)
    return [
        *[(place,) * 3 for place in range(before)],
        *[
            (before + gap * time, before + row, before + column)
            for time in range(frames)
            for row in range(rows)
            for column in range(columns)
        ],
        *[(place,) * 3 for place in range(first_after, first_after + after)],
    ]


def batch(prompts, side="right", positions=None):
    """Columns of prompts of any lengths, padded on one side, `inside` in front of the text.

    positions  those of each prompt's tokens, tuples of any length
    """
    width = max(sum(map(len, each)) for each in prompts)
    channels = prompts[0][0].shape[1]
    rows, kinds, turned = [], [], []
    for number, (before, visual, after) in enumerate(prompts):
        kind = [BEFORE] * len(before) + [VISUAL] * len(visual) + [AFTER] * len(after)
        gap = width - len(kind)
        padding = torch.full((gap, channels), 7.0, dtype=before.dtype)
        parts = [before, visual, after]
        place = {"left": 0, "inside": 2, "right": 3}[side]
        at = sum(map(len, parts[:place]))
        rows.append(torch.cat([*parts[:place], padding, *parts[place:]]))
        kinds.append(kind[:at] + [GONE] * gap + kind[at:])
        if positions is not None:
            own = positions[number]
            turned.append([*own[:at], *[(0,) * len(own[0])] * gap, *own[at:]])
    given = torch.tensor(turned) if turned else None
    return Columns.of(torch.stack(rows), torch.tensor(kinds), given)
