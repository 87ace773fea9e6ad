"""Mini-Gemini (YanweiLi/MGM-7B and its like), which transformers does not have.

CLIP ViT-L/14-336 for the patches, an OpenCLIP ConvNeXt-L that sees the image at 768 pixels, patch
info mining between the two, a projector and a LLaMA. Importing this package teaches `AutoConfig`
the model types "mini_gemini" and "mgm".
"""

from prunesid.families.mini_gemini.adapter import MiniGemini
from prunesid.families.mini_gemini.configuration import MiniGeminiConfig
from prunesid.families.mini_gemini.modeling import (
    MiniGeminiForConditionalGeneration,
    MiniGeminiModel,
)
from prunesid.families.mini_gemini.processing import MiniGeminiProcessor

__all__ = [
    "MiniGemini",
    "MiniGeminiConfig",
    "MiniGeminiForConditionalGeneration",
    "MiniGeminiModel",
    "MiniGeminiProcessor",
]
