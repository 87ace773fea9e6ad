"""The sizes of a model, from its config.json alone: tokens, multiply-adds, parameters.

Nothing of transformers is imported: planning a study reads this in every job. A config.json leaves
out what is its class's default; `DEFAULTS` holds those of the classes that occur.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from prunesid.core.costs import Transformer
from prunesid.images.media import FRAMES

Config = Mapping[str, Any]

# transformers' defaults of the fields that are read here.
_LLAMA = {
    "vocab_size": 32000, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN2 = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN2_VL = {
    "vocab_size": 152064, "hidden_size": 8192, "intermediate_size": 29568, "num_hidden_layers": 80,
    "num_attention_heads": 64, "num_key_value_heads": 8, "tie_word_embeddings": False,
}  # fmt: skip
_QWEN3_VL = {
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 22016, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "head_dim": 128,
    "tie_word_embeddings": False,
}  # fmt: skip
_SMALL_TOWER = {
    "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
    "num_attention_heads": 12, "image_size": 224,
}  # fmt: skip
DEFAULTS: Mapping[str, Config] = {
    "llama": _LLAMA,
    "qwen2": _QWEN2,
    "qwen2_vl_text": _QWEN2_VL,
    "qwen2_5_vl_text": _QWEN2_VL,
    "qwen3_vl_text": _QWEN3_VL,
    "clip_vision_model": _SMALL_TOWER | {"patch_size": 32},
    "siglip_vision_model": _SMALL_TOWER | {"patch_size": 16},
    "qwen2_vl_vision": {
        "depth": 32, "embed_dim": 1280, "hidden_size": 3584, "mlp_ratio": 4, "num_heads": 16,
        "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2,
    },
    "qwen2_5_vl_vision": {
        "depth": 32, "hidden_size": 3584, "intermediate_size": 3420, "num_heads": 16,
        "out_hidden_size": 3584, "patch_size": 14, "spatial_merge_size": 2,
        "temporal_patch_size": 2,
    },
    "qwen3_vl_vision": {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16,
        "out_hidden_size": 3584, "patch_size": 16, "spatial_merge_size": 2,
        "temporal_patch_size": 2, "num_position_embeddings": 2304,
        "deepstack_visual_indexes": [8, 16, 24],
    },
}  # fmt: skip
# What an image of 640 x 480 pixels, COCO's usual size, has where its size decides its tokens.
USUAL_PIXELS = (640, 480)


@dataclass(frozen=True)
class Geometry:
    """What a model's cost depends on.

    model_type    family, as config.json names it
    tower         blocks of the vision tower
    tower_tokens  tokens of one crop (or frame) in the tower, CLS included
    crop_tokens   tokens of one crop that are pruned and enter the language model; newlines, which
                  enter beside them, are not counted
    width         width of the tokens that are pruned, with what they carry
    crops         crops of an image at the most, or what a clip is cut into along time
    usual_crops   of an image of COCO's usual size, 640 x 480 pixels
    fixed         whether every crop has `crop_tokens`; else they are those of a usual image
    extra_macs    multiply-adds per crop beside the tower: further towers, mergers
    decoder       layers of the language model
    vocabulary    its output layer
    parameters    weights of the whole model
    axes          rotary positions of a token in the language model: one, or time, row and column
    """

    model_type: str
    tower: Transformer
    tower_tokens: int
    crop_tokens: int
    width: int
    crops: int
    usual_crops: int
    fixed: bool
    extra_macs: int
    decoder: Transformer
    vocabulary: int
    parameters: int
    axes: int = 1

    @property
    def tokens(self) -> int:
        """Visual tokens of an image with the most crops, or of a clip."""
        return self.crops * self.crop_tokens

    @property
    def usual_tokens(self) -> int:
        """Visual tokens of an image of the usual size, or of a clip."""
        return self.usual_crops * self.crop_tokens

    @property
    def crop_macs(self) -> int:
        """Multiply-adds of one crop before the language model."""
        return self.tower.macs([self.tower_tokens] * self.tower.layers) + self.extra_macs

    @property
    def token_macs(self) -> float:
        """Multiply-adds of a token that enters the language model, at the usual length."""
        tokens = self.usual_tokens
        return self.decoder.macs([tokens] * self.decoder.layers) / tokens


def geometry(config: Config, frames: int | None = None) -> Geometry | None:
    """The sizes that a config.json states; None for a model type that is not known here.

    frames  of a clip; None for an image, or, of Video-LLaVA, for a clip of FRAMES

    ValueError where a family that takes no clips is asked for one.
    """
    model_type = str(config.get("model_type"))
    if frames is not None:
        refuse_without_clips(model_type)
    if model_type in _IMAGES_ALONE:
        return _IMAGES_ALONE[model_type](config)
    read = _CLIPS_TOO.get(model_type)
    return None if read is None else read(config, frames)


def refuse_without_clips(model_type: str) -> None:
    """ValueError for a family that is known to take images alone."""
    if model_type in _IMAGES_ALONE:
        raise ValueError(f"{model_type} models take no clips; {', '.join(sorted(_CLIPS_TOO))} do")


def _filled(part: Config, model_type: str) -> dict[str, Any]:
    """A part of a config.json with its class's defaults; `model_type` where it states none."""
    chosen = str(part.get("model_type", model_type))
    stated = {key: value for key, value in part.items() if value is not None}
    return {**DEFAULTS.get(chosen, {}), **stated, "model_type": chosen}


def _text(config: Config, model_type: str) -> dict[str, Any]:
    """The language model's part. Before transformers 5 Qwen's stood at the top level."""
    part = config.get("text_config")
    if part is None:
        part = {k: v for k, v in config.items() if k != "model_type"}
    found = _filled(part, model_type)
    found.setdefault("num_key_value_heads", found["num_attention_heads"])
    return found


def _transformer(part: Config, ffn_matrices: int) -> Transformer:
    heads = part["num_attention_heads"]
    return Transformer(
        layers=part["num_hidden_layers"], width=part["hidden_size"],
        ffn=part["intermediate_size"], heads=heads,
        kv_heads=part.get("num_key_value_heads") or heads,
        head_dim=part.get("head_dim") or part["hidden_size"] // heads, ffn_matrices=ffn_matrices,
    )  # fmt: skip


def _decoder_parameters(text: Config, decoder: Transformer, tied: bool) -> int:
    width, queries = decoder.width, decoder.heads * decoder.head_dim
    keys = decoder.kv_heads * decoder.head_dim
    biases = queries + 2 * keys if text["model_type"].startswith("qwen2") else 0
    # Qwen3 norms every head's query and key.
    norms = 2 * decoder.head_dim if text["model_type"].startswith("qwen3") else 0
    block = 2 * width * (queries + keys) + biases + norms + 3 * width * decoder.ffn + 2 * width
    return decoder.layers * block + width + text["vocab_size"] * width * (1 if tied else 2)


def _tower_parameters(tower: Transformer, patch: int, positions: int, cls: bool) -> int:
    """Of CLIP (with CLS) or SigLIP (without); both end in a norm, CLIP also begins with one."""
    width = tower.width
    block = 4 * width * width + 2 * width * tower.ffn + 9 * width + tower.ffn
    # CLIP: CLS and one more norm (2); SigLIP: the patches' bias.
    rest = 3 * patch * patch * width + (positions + (1 + 2 if cls else 1) + 2) * width
    return tower.layers * block + rest


def _projector(config: Config, inside: int, outside: int) -> int:
    bias = config.get("multimodal_projector_bias", True)
    return (inside + outside) * outside + 2 * outside * bias


def _vit(
    config: Config, *, tiles: int = 0, frames: int = 1, vision_type: str = "clip_vision_model",
    text_type: str = "llama", towers: int = 1, newline: bool = False, projects_first: bool = False,
    pooling: int = 1,
) -> Geometry:  # fmt: skip
    """LLaVA's kind: a CLIP or SigLIP tower, a projector of two layers, a decoder.

    An image is seen whole and, where it is large, as up to `tiles` parts of the tower's size.
    `projects_first` says that tokens are pruned behind the projector; `pooling` divides the sides of
    their grid.
    """
    vision = _filled(config.get("vision_config") or _CLIP_L, vision_type)
    text = _text({"text_config": {}, **config}, text_type)
    tower, decoder = _transformer(vision, 2), _transformer(text, 3)
    side = vision["image_size"] // vision["patch_size"]
    patches = side**2
    cls = vision["model_type"] == "clip_vision_model"
    tied = config.get("tie_word_embeddings", text["tie_word_embeddings"])
    usual = min(tiles, math.prod(math.ceil(side / vision["image_size"]) for side in USUAL_PIXELS))
    vit = _tower_parameters(tower, vision["patch_size"], patches + cls, cls)
    return Geometry(
        model_type=config["model_type"], tower=tower, tower_tokens=patches + cls,
        crop_tokens=math.ceil(side / pooling) ** 2,
        width=decoder.width if projects_first else tower.width, crops=frames * (1 + tiles),
        usual_crops=frames * (1 + usual), fixed=True,
        extra_macs=patches * (tower.width + decoder.width) * decoder.width, decoder=decoder,
        vocabulary=text["vocab_size"],
        parameters=towers * vit + _projector(config, tower.width, decoder.width)
        + _decoder_parameters(text, decoder, tied) + newline * decoder.width,
    )  # fmt: skip


# The tower that LLaVA's classes take where config.json states none: CLIP ViT-L/14 at 336 pixels.
_CLIP_L = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "intermediate_size": 4096,
    "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 336, "patch_size": 14,
}  # fmt: skip


def _llava(config: Config) -> Geometry:
    return _vit(config)


def _llava_next(config: Config) -> Geometry:
    """The tiles are those of the image's best pinpoint."""
    vision = _filled(config.get("vision_config") or _CLIP_L, "clip_vision_model")
    side = vision["image_size"]
    pinpoints = config.get("image_grid_pinpoints") or [[2 * side, 2 * side]]
    tiles = max(height * width for height, width in pinpoints) // side**2
    return _vit(config, tiles=tiles, newline=True)


def _video_llava(config: Config, frames: int | None) -> Geometry:
    """Images and frames have a tower each."""
    small = config.get("vision_config") or _CLIP_L | {"image_size": 224}
    return _vit({**config, "vision_config": small}, frames=frames or FRAMES, towers=2)


def _llava_onevision(config: Config, frames: int | None) -> Geometry:
    """Beyond the n tiles of `anyres_max_n` an image's tokens are scaled down to as many.

    A frame has no tiles, and its tokens are pooled two by two.
    """
    most = str(config.get("vision_aspect_ratio", "anyres_max_9")).rsplit("_", 1)[-1]
    shown = {"tiles": int(most)} if frames is None else {"frames": frames, "pooling": 2}
    return _vit(
        config, vision_type="siglip_vision_model", text_type="qwen2", newline=True,
        projects_first=True, **shown,
    )  # fmt: skip


def _qwen2_vl(config: Config, frames: int | None) -> Geometry:
    vision = _tower(config, "qwen2_vl_vision")
    width = vision["embed_dim"]
    ffn = int(width * vision["mlp_ratio"])
    tower = Transformer(
        vision["depth"], width, ffn, vision["num_heads"], vision["num_heads"],
        width // vision["num_heads"], 2,
    )  # fmt: skip
    block = 4 * width * width + 2 * width * ffn + 9 * width + ffn
    return _qwen(config, frames, vision, tower, block, norms=2, out=vision["hidden_size"])


def _qwen2_5_vl(config: Config, frames: int | None) -> Geometry:
    """Most blocks attend within windows; their scores are counted as if they did not."""
    vision = _tower(config, "qwen2_5_vl_vision")
    width, ffn = vision["hidden_size"], vision["intermediate_size"]
    tower = Transformer(
        vision["depth"], width, ffn, vision["num_heads"], vision["num_heads"],
        width // vision["num_heads"], 3,
    )  # fmt: skip
    block = 4 * width * width + 3 * width * ffn + 7 * width + 2 * ffn
    return _qwen(config, frames, vision, tower, block, norms=1, out=vision["out_hidden_size"])


def _qwen3_vl(config: Config, frames: int | None) -> Geometry:
    """Blocks as Qwen2-VL's; learned positions, and further mergers with a wider norm."""
    vision = _tower(config, "qwen3_vl_vision")
    width, ffn = vision["hidden_size"], vision["intermediate_size"]
    tower = Transformer(
        vision["depth"], width, ffn, vision["num_heads"], vision["num_heads"],
        width // vision["num_heads"], 2,
    )  # fmt: skip
    block = 4 * width * width + 2 * width * ffn + 9 * width + ffn
    positions = (vision["num_position_embeddings"] + 1) * width
    return _qwen(
        config, frames, vision, tower, block, norms=2, out=vision["out_hidden_size"],
        further=len(vision["deepstack_visual_indexes"]), rest=positions,
    )  # fmt: skip


def _tower(config: Config, model_type: str) -> dict[str, Any]:
    """The tower's part; published checkpoints call it by the whole model's type."""
    part = config.get("vision_config") or {}
    return _filled({k: v for k, v in part.items() if k != "model_type"}, model_type)


def _qwen(
    config: Config, frames: int | None, vision: Config, tower: Transformer, block: int, *,
    norms: int, out: int, further: int = 0, rest: int = 0,
) -> Geometry:  # fmt: skip
    """Patches of an image of any size, merged two by two; `norms` vectors in the merger's norm.

    further  mergers beside it, each with a norm of merged patches; rest: other parameters of the tower
    Frames are taken to have the usual size of images; `temporal_patch_size` of them are one crop.
    """
    text = _text(config, f"{config['model_type']}_text")
    decoder = _transformer(text, 3)
    tied = config.get("tie_word_embeddings", text["tie_word_embeddings"])
    patch, merge = vision["patch_size"], vision["spatial_merge_size"]
    sides = [round(side / (patch * merge)) for side in USUAL_PIXELS]
    merged = sides[0] * sides[1]
    joined = tower.width * merge**2
    crops = math.ceil((frames or 1) / vision["temporal_patch_size"])
    embedding = 3 * vision["temporal_patch_size"] * patch * patch * tower.width
    layers = joined * joined + joined + joined * out + out
    mergers = norms * tower.width + layers + further * (norms * joined + layers)
    return Geometry(
        model_type=config["model_type"], tower=tower, tower_tokens=merged * merge**2,
        crop_tokens=merged, width=out * (1 + further), crops=crops, usual_crops=crops, fixed=False,
        extra_macs=merged * (1 + further) * (joined * joined + joined * out), decoder=decoder,
        vocabulary=text["vocab_size"],
        parameters=tower.layers * block + embedding + mergers + rest
        + _decoder_parameters(text, decoder, tied), axes=3,
    )  # fmt: skip


# OpenCLIP's ConvNeXt-L trunk.
_CONVNEXT_L = {"hidden_sizes": (192, 384, 768, 1536), "depths": (3, 3, 27, 3)}


def _mini_gemini(config: Config) -> Geometry:
    """A CLIP tower, a ConvNeXt on a larger image, patch info mining between them.

    Published checkpoints state their language model at the top level and its towers by name: CLIP
    ViT-L/14 at 336 pixels and ConvNeXt-L.
    """
    flat = "text_config" not in config
    stated = {k: v for k, v in config.items() if k != "model_type"} if flat else config
    text = _text({"text_config": stated} if flat else config, "llama")
    clip = _filled(config.get("vision_config") or _CLIP_L, "clip_vision_model")
    trunk = config.get("aux_config") or _CONVNEXT_L
    tower, decoder = _transformer(clip, 2), _transformer(text, 3)
    patches = (clip["image_size"] // clip["patch_size"]) ** 2
    # A cell of the first stage is 4 x 4 pixels.
    side = int(config.get("image_size_aux", 768)) // 4
    trunk_parameters, trunk_macs = _convnext(trunk["depths"], trunk["hidden_sizes"], side)
    width, wide = tower.width, sum(trunk["hidden_sizes"])
    # Queries, keys and values have a norm and a layer each.
    mining = width * width + 3 * width + 2 * (wide * width + width + 2 * wide)
    mining_macs = patches * width * width + 2 * side * side * (wide + 1) * width
    projector = (width + decoder.width) * decoder.width
    tied = text["tie_word_embeddings"]
    return Geometry(
        model_type="mini_gemini", tower=tower, tower_tokens=patches + 1, crop_tokens=patches,
        width=width, crops=1, usual_crops=1, fixed=True,
        extra_macs=trunk_macs + mining_macs + patches * projector, decoder=decoder,
        vocabulary=text["vocab_size"],
        parameters=_tower_parameters(tower, clip["patch_size"], patches + 1, True)
        + trunk_parameters + mining + projector + 2 * decoder.width
        + _decoder_parameters(text, decoder, tied),
    )  # fmt: skip


def _convnext(depths: Sequence[int], widths: Sequence[int], side: int) -> tuple[int, int]:
    """Parameters and multiply-adds of a trunk whose first stage has side x side cells."""
    parameters = 3 * 16 * widths[0] + 3 * widths[0]
    macs = side * side * 3 * 16 * widths[0]
    before = None
    for stage, (depth, width) in enumerate(zip(depths, widths, strict=True)):
        cells = (side >> stage) ** 2
        if before is not None:
            parameters += 2 * before + 4 * before * width + width
            macs += cells * 4 * before * width
        # A depthwise convolution of 7 x 7, a norm, two layers of four times the width, a scale.
        parameters += depth * (49 * width + 8 * width * width + 9 * width)
        macs += depth * cells * (49 * width + 8 * width * width)
        before = width
    return parameters, macs


_IMAGES_ALONE: Mapping[str, Callable[[Config], Geometry]] = {
    "llava": _llava, "llava_next": _llava_next, "mini_gemini": _mini_gemini, "mgm": _mini_gemini,
}  # fmt: skip
_CLIPS_TOO: Mapping[str, Callable[[Config, int | None], Geometry]] = {
    "video_llava": _video_llava, "llava_onevision": _llava_onevision, "qwen2_vl": _qwen2_vl,
    "qwen2_5_vl": _qwen2_5_vl, "qwen3_vl": _qwen3_vl,
}  # fmt: skip
