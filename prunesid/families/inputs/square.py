"""Images made square by padding, as LLaVA does in training and evaluation."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image


def mean_color(image_processor: Any) -> tuple[int, ...]:
    """RGB of the mean that an image processor subtracts, rounded down (LLaVA's mm_utils.py)."""
    return tuple(int(255 * mean) for mean in image_processor.image_mean)


def squared(image: Image, color: tuple[int, ...]) -> Image:
    """An RGB image in the middle of the smallest square that holds it; a square one is itself.

    Where the padding is odd, the side before the image has the pixel less.
    """
    from PIL import Image

    width, height = image.size
    if width == height:
        return image
    side = max(width, height)
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square
