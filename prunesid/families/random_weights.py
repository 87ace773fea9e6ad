"""Models of published sizes with random weights: time and memory need no checkpoint.

    adapter = random_adapter(hub_models()["llava-hf/llava-1.5-7b-hf"].config, "cuda", "bfloat16")

Only what is seen is real: sizes, kernels and the processing of images. There is no tokenizer, so
prompts are token ids.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch

from prunesid.families import adapt, parse_dtype
from prunesid.families.base import Adapter
from prunesid.families.declared import family_of
from prunesid.families.inputs.processors import Parts

# A token that no random prompt has, for families that look tokens up by name.
MARKS = ("<img>", "</img>", "<video>")


def random_adapter(
    config: Mapping[str, Any],
    device: str | torch.device = "cpu",
    dtype: str | torch.dtype = "float32",
    layers: int | None = None,
) -> Adapter:
    """The adapter of a model as a config.json describes it, with random weights.

    layers  layers of the language model; None: all

    ValueError for an unknown model type.
    """
    from transformers import AutoModelForImageTextToText

    family = family_of(str(config["model_type"]))
    stated = copy.deepcopy(dict(config))
    if layers is not None:
        own = stated.get("text_config", stated)
        own["num_hidden_layers"] = layers
    whole = family.configuration(stated)
    before = torch.get_default_dtype()
    torch.manual_seed(0)
    torch.set_default_dtype(parse_dtype(dtype))
    try:
        with torch.device(device):
            model = (family.build or AutoModelForImageTextToText.from_config)(whole)
    finally:
        torch.set_default_dtype(before)
    # Weights that are drawn may come out in another type.
    model = model.to(device, parse_dtype(dtype)).eval()
    return adapt(model, _processor(family.name, whole))


def _processor(family: str, config: Any) -> Any:
    """The family's processing of images at the model's sizes, and a tokenizer of three marks."""
    images = _images(family, config)
    tokenizer = _tokenizer()
    if family == "mini_gemini":
        from prunesid.families.mini_gemini.processing import MiniGeminiProcessor

        return MiniGeminiProcessor(config, tokenizer)
    return Parts(tokenizer, images, None, {})


def _images(family: str, config: Any) -> Any:
    # transformers' processors that need no torchvision.
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
    from transformers.models.got_ocr2.image_processing_pil_got_ocr2 import GotOcr2ImageProcessorPil
    from transformers.models.llava_next.image_processing_pil_llava_next import (
        LlavaNextImageProcessorPil,
    )
    from transformers.models.llava_onevision.image_processing_pil_llava_onevision import (
        LlavaOnevisionImageProcessorPil,
    )
    from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import Qwen2VLImageProcessorPil

    vision = config.vision_config
    if family.startswith("qwen"):
        sizes = ("patch_size", "temporal_patch_size")
        named = {name: getattr(vision, name) for name in sizes}
        return Qwen2VLImageProcessorPil(**named, merge_size=vision.spatial_merge_size)
    side = vision.image_size if isinstance(vision.image_size, int) else vision.image_size[0]
    square = {"height": side, "width": side}
    if family == "internvl":
        return GotOcr2ImageProcessorPil(size=square, crop_to_patches=True)
    if family == "llava_onevision":
        pinpoints = config.image_grid_pinpoints
        return LlavaOnevisionImageProcessorPil(size=square, image_grid_pinpoints=pinpoints)
    cut: dict[str, Any] = {"size": {"shortest_edge": side}, "crop_size": square}
    if family == "video_llava":
        from transformers import VideoLlavaImageProcessor

        return VideoLlavaImageProcessor(**cut)
    if family == "llava_next":
        pinpoints = config.image_grid_pinpoints
        return LlavaNextImageProcessorPil(**cut, image_grid_pinpoints=pinpoints)
    return CLIPImageProcessorPil(**cut)


def _tokenizer() -> Any:
    from tokenizers import Tokenizer, models
    from transformers import PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate(("<unk>", *MARKS))}
    start, end, video = MARKS
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel(words, unk_token="<unk>")),
        unk_token="<unk>",
        extra_special_tokens={
            "start_image_token": start, "end_image_token": end, "video_token": video,
        },
    )  # fmt: skip
