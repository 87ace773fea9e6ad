"""Video-LLaVA: one tower size for images and frames; without a number of frames, clips count."""

from prunesid.core import crops
from prunesid.families.declared import PLANNED, Family, declare
from prunesid.families.declared.geometry import vit
from prunesid.families.inputs.conversations import LLAVA_V1
from prunesid.images.media import FRAMES

declare(
    Family(
        "video_llava",
        lambda config, frames: vit(config, frames=frames or FRAMES),
        padding="images to a square, in the mean color; frames cropped",
        prompt=LLAVA_V1,
        clips=True,
        choices=crops.FRAMES,
        encoder=PLANNED,
    )
)
