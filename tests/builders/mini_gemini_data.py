"""A tiny Mini-Gemini checkpoint in the published layout, and the published way of an image."""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers import CLIPVisionModel, LlamaConfig, LlamaForCausalLM

from builders.tiny_parts import TEXT, clip_vision

WIDTHS, DEPTHS = (8, 12, 16, 20), (1, 1, 2, 1)
CLIP = clip_vision()
LLAMA = LlamaConfig(
    **TEXT,
    vocab_size=47,
    max_position_embeddings=256,
    bos_token_id=1,
    eos_token_id=2,
    pad_token_id=0,
)
FIELDS = {
    "model_type": "mgm",
    "architectures": ["MGMLlamaForCausalLM"],
    "mm_vision_tower": "model_zoo/OpenAI/clip-tiny",
    "mm_vision_tower_aux": "model_zoo/OpenAI/openclip-tiny",
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 32,
    "mm_hidden_size_aux": sum(WIDTHS),
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
    "image_aspect_ratio": "pad",
    "image_grid": 1,
    "image_global": False,
    "image_size_aux": 128,
    "optimize_vision_tower": False,
    "optimize_vision_tower_aux": False,
    "tokenizer_model_max_length": 2048,
}
TOWER, STEM, STAGES = (
    "model.vision_tower.vision_tower.",
    "model.vision_tower_aux.vision_stem.",
    "model.vision_tower_aux.vision_stages.",
)


def published_tensors() -> dict[str, Tensor]:
    """Every tensor of a checkpoint with both towers, in the published names."""
    torch.manual_seed(0)
    llama = LlamaForCausalLM(LLAMA).state_dict()
    clip = CLIPVisionModel(CLIP).state_dict()
    shapes = {name: tuple(tensor.shape) for name, tensor in llama.items()}
    shapes |= {f"{TOWER}vision_model.{name}": tuple(t.shape) for name, t in clip.items()}
    for name, width in (("query", 32), ("aux", sum(WIDTHS)), ("val", sum(WIDTHS))):
        shapes |= _layer(f"model.vlm_uni_{name}_projector.0.", (width,))
        shapes |= _layer(f"model.vlm_uni_{name}_projector.1.", (32, width))
    shapes |= _layer("model.mm_projector.0.", (48, 32)) | _layer("model.mm_projector.2.", (48, 48))
    shapes |= _layer(f"{STEM}0.", (WIDTHS[0], 3, 4, 4)) | _layer(f"{STEM}1.", (WIDTHS[0],))
    for stage, (width, depth) in enumerate(zip(WIDTHS, DEPTHS, strict=True)):
        if stage:
            before = WIDTHS[stage - 1]
            shapes |= _layer(f"{STAGES}{stage}.downsample.0.", (before,))
            shapes |= _layer(f"{STAGES}{stage}.downsample.1.", (width, before, 2, 2))
        for block in range(depth):
            name = f"{STAGES}{stage}.blocks.{block}."
            shapes |= {f"{name}gamma": (width,)}
            shapes |= _layer(f"{name}conv_dw.", (width, 1, 7, 7))
            shapes |= _layer(f"{name}norm.", (width,))
            shapes |= _layer(f"{name}mlp.fc1.", (4 * width, width))
            shapes |= _layer(f"{name}mlp.fc2.", (width, 4 * width))
    tensors = {}
    for name, shape in shapes.items():
        fan = torch.Size(shape[1:]).numel() if len(shape) > 1 else 4
        tensors[name] = torch.randn(shape) * fan**-0.5
        if len(shape) == 1 and name.endswith(".weight"):
            tensors[name] += 1
    # No near ties among the logits, and images that matter to the answer.
    tensors["lm_head.weight"] *= 20
    tensors["model.mm_projector.2.weight"] *= 4
    for name in tensors:
        if "self_attn.v_proj" in name and name.startswith("model.layers"):
            tensors[name] *= 4
    return tensors


def save_published(
    folder: Path, tensors: dict[str, Tensor], *, shards: int = 2, **fields: object
) -> Path:
    """Writes `config.json`, shards and their index."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {**LLAMA.to_dict(), **FIELDS, **fields}
    (folder / "config.json").write_text(json.dumps(config))
    index = {}
    for number in range(shards):
        file = f"model-{number + 1:05}-of-{shards:05}.safetensors"
        part = dict(list(tensors.items())[number::shards])
        save_file(part, folder / file)
        index |= dict.fromkeys(part, file)
    text = json.dumps({"metadata": {}, "weight_map": index})
    (folder / "model.safetensors.index.json").write_text(text)
    return folder


def save_towers(folder: Path, tensors: dict[str, Tensor]) -> dict[str, str]:
    """The towers' own checkpoints, as CLIP's and OpenCLIP's folders are; fields that name them."""
    clip = CLIPVisionModel(CLIP)
    clip.load_state_dict(_under(tensors, f"{TOWER}vision_model."))
    clip.save_pretrained(folder / "clip-tiny")
    trunk = {f"visual.trunk.stem.{name}": t for name, t in _under(tensors, STEM).items()}
    trunk |= {f"visual.trunk.stages.{name}": t for name, t in _under(tensors, STAGES).items()}
    others = ("visual.head.mlp.fc1.weight", "visual.trunk.head.norm.weight", "text.ln_final.bias")
    trunk |= {name: torch.zeros(3) for name in (*others, "logit_scale")}
    (folder / "openclip-tiny").mkdir()
    save_file(trunk, folder / "openclip-tiny" / "open_clip_model.safetensors")
    return {
        "mm_vision_tower": str(folder / "clip-tiny"),
        "mm_vision_tower_aux": str(folder / "openclip-tiny"),
    }


def reference_trunk(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    """The ConvNeXt trunk, by timm's names, in float64; all stages at the first one's size."""
    stem, stages = _under(tensors, STEM), _under(tensors, STAGES)
    x = F.conv2d(pixels.double(), *_pair(stem, "0."), stride=4)
    x = _norm(x, *_pair(stem, "1."))
    maps = []
    for stage, depth in enumerate(DEPTHS):
        if stage:
            x = _norm(x, *_pair(stages, f"{stage}.downsample.0."))
            x = F.conv2d(x, *_pair(stages, f"{stage}.downsample.1."), stride=2)
        for block in range(depth):
            name = f"{stage}.blocks.{block}."
            y = F.conv2d(x, *_pair(stages, f"{name}conv_dw."), padding=3, groups=x.shape[1])
            y = _norm(y, *_pair(stages, f"{name}norm.")).permute(0, 2, 3, 1)
            y = F.gelu(F.linear(y, *_pair(stages, f"{name}mlp.fc1.")))
            y = F.linear(y, *_pair(stages, f"{name}mlp.fc2."))
            x = x + (y * stages[f"{name}gamma"].double()).permute(0, 3, 1, 2)
        maps.append(x)
    size = maps[0].shape[-2:]
    return torch.cat(
        [F.interpolate(m, size, mode="bilinear", align_corners=False) for m in maps], 1
    )


def reference_patches(tensors: dict[str, Tensor], pixels: Tensor) -> Tensor:
    clip = CLIPVisionModel(CLIP).double().eval()
    clip.load_state_dict(_under(tensors, f"{TOWER}vision_model."))
    with torch.no_grad():
        return clip(pixels.double(), output_hidden_states=True).hidden_states[-2][:, 1:]


def reference_tokens(tensors: dict[str, Tensor], pixels: Tensor, sharp: Tensor) -> Tensor:
    """The final image tokens, patch by patch, in float64."""
    patches, cells = reference_patches(tensors, pixels), reference_trunk(tensors, sharp)
    names = [f"model.vlm_uni_{name}_projector." for name in ("query", "aux", "val")]
    grid, side = 4, cells.shape[-1] // 4

    def project(x: Tensor, name: str) -> Tensor:
        x = F.layer_norm(x, x.shape[-1:], *_pair(tensors, f"{name}0."))
        return F.linear(x, *_pair(tensors, f"{name}1."))

    out = torch.empty_like(patches)
    for image in range(len(patches)):
        for number in range(grid * grid):
            row, column = divmod(number, grid)
            window = cells[
                image, :, row * side : (row + 1) * side, column * side : (column + 1) * side
            ]
            window = window.flatten(1).T
            query = project(patches[image, number], names[0])
            key, value = project(window, names[1]), project(window, names[2])
            weights = (key @ query / query.shape[-1] ** 0.5).softmax(0)
            out[image, number] = patches[image, number] + weights @ value
    return out


def reference_projected(tensors: dict[str, Tensor], tokens: Tensor) -> Tensor:
    hidden = F.gelu(F.linear(tokens.double(), *_pair(tensors, "model.mm_projector.0.")))
    return F.linear(hidden, *_pair(tensors, "model.mm_projector.2."))


def reference_llama(tensors: dict[str, Tensor]) -> LlamaForCausalLM:
    model = LlamaForCausalLM(LLAMA).double().eval()
    model.load_state_dict({name: tensors[name] for name in model.state_dict()})
    return model


def _layer(name: str, shape: tuple[int, ...]) -> dict[str, tuple[int, ...]]:
    return {f"{name}weight": shape, f"{name}bias": shape[:1]}


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {n[len(prefix) :]: t for n, t in tensors.items() if n.startswith(prefix)}


def _pair(tensors: dict[str, Tensor], name: str) -> tuple[Tensor, Tensor]:
    return tensors[f"{name}weight"].double(), tensors[f"{name}bias"].double()


def _norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """LayerNorm over the channels of (B, C, H, W)."""
    center = x - x.mean(1, keepdim=True)
    x = center / (center.square().mean(1, keepdim=True) + 1e-6).sqrt()
    return x * weight[:, None, None] + bias[:, None, None]
