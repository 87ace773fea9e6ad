"""Images and prompts of Mini-Gemini, as the authors' evaluation scripts prepare them.

The image is made square (padded with CLIP's mean color, or cropped), resized to `image_size_aux` by
PIL's bicubic filter and normalized with CLIP's mean and deviation: the high-resolution image. The
low-resolution one is the same tensor shrunk to the CLIP tower's size, bilinearly and without
antialiasing (dvlab-research/MGM, mgm/eval/model_vqa_loader.py and mgm/mm_utils.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunesid.families.inputs.conversations import pieces
from prunesid.families.inputs.square import mean_color, squared
from prunesid.families.mini_gemini.configuration import MiniGeminiConfig

if TYPE_CHECKING:
    from PIL.Image import Image

MARK = "<image>"


class MiniGeminiProcessor:
    """Called with images and texts that hold `<image>` where an image goes."""

    def __init__(self, config: MiniGeminiConfig, tokenizer: Any) -> None:
        from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

        side = config.image_size_aux
        self.config = config
        self.tokenizer = tokenizer
        self._sharp = CLIPImageProcessorPil(
            size={"shortest_edge": side}, crop_size={"height": side, "width": side}
        )

    @classmethod
    def from_pretrained(cls, path: str | Path) -> MiniGeminiProcessor:
        """The processor of a folder or hub id, from its configuration and tokenizer."""
        from transformers import AutoConfig

        return cls.of(AutoConfig.from_pretrained(path, trust_remote_code=False), path)

    @classmethod
    def of(cls, config: MiniGeminiConfig, path: str | Path) -> MiniGeminiProcessor:
        """For a loaded model, whose configuration has the geometry of its weights."""
        from transformers import AutoTokenizer

        return cls(config, AutoTokenizer.from_pretrained(path, trust_remote_code=False))

    def __call__(
        self, images: Sequence[Image], text: str | Sequence[str], return_tensors: str = "pt"
    ) -> dict[str, Tensor]:
        """All that `generate` takes, as torch tensors: images in the order of their marks.

        Texts are padded on the left. ValueError unless there is a mark for each image.
        """
        if return_tensors != "pt":
            raise ValueError(f"return_tensors must be 'pt' (torch tensors), not {return_tensors!r}")
        text = [text] if isinstance(text, str) else text
        marks = sum(one.count(MARK) for one in text)
        if marks != len(images):
            raise ValueError(f"{marks} times {MARK} in the texts, for {len(images)} images")
        places = [self.config.image_token_id] * self.config.image_seq_length
        rows = []
        for one in text:
            first, *others = pieces(self.tokenizer, one, [MARK])[0]
            rows.append([*first, *(i for ids in others for i in (*places, *ids))])
        length = max(map(len, rows))
        ids = torch.tensor([[0] * (length - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (length - len(row)) + [1] * len(row) for row in rows])
        seen = self.images(images) if images else {}
        return {"input_ids": ids, "attention_mask": mask, **seen}

    def images(self, images: Sequence[Image]) -> dict[str, Tensor]:
        """`pixel_values` (B, 3, S, S) and `pixel_values_aux` (B, 3, S', S'), float32."""
        pictures = [image.convert("RGB") for image in images]
        if self.config.image_aspect_ratio == "pad":
            color = mean_color(self._sharp)
            pictures = [squared(picture, color) for picture in pictures]
        sharp = self._sharp(pictures, return_tensors="pt")["pixel_values"]
        side = self.config.vision_config.image_size
        small = torch.nn.functional.interpolate(
            sharp, size=(side, side), mode="bilinear", align_corners=False
        )
        return {"pixel_values": small, "pixel_values_aux": sharp}
