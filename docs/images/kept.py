"""The picture of kept patches in README.md: what five methods keep of one of our scenes.

python docs/images/kept.py docs/images/kept.png
"""

import sys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from prunesid import families
from prunesid.images.patches import draw, in_rows, kept_media
from prunesid.methods.features import requirements_in_crops
from prunesid.pocket import WEIGHTS
from prunesid.pocket.drawing import draw as render
from prunesid.pocket.scenes import sample_scene

METHODS = ("prunesid", "divprune", "visionzip", "cls_topk", "grid")
BUDGET, SIDE, HEAD = 64, 480, 40

adapter = families.load(WEIGHTS)
scene = render(sample_scene(np.random.default_rng(3), kind="scene"))[0]
# Larger, so that frames are thin beside their patches.
image = scene.resize((SIDE, SIDE), Image.Resampling.LANCZOS)
pictures = [("all 576 tokens", image)]
for method in METHODS:
    records = adapter.encode(adapter.preprocess([scene]), requirements_in_crops(method))
    (kept,) = kept_media(records.compress(method, budget=BUDGET), records)
    pictures.append((f"{method}, {kept.tokens} tokens", draw(image, kept)))
font = ImageFont.load_default(26)
headed = []
for label, picture in pictures:
    whole = Image.new("RGB", (SIDE, SIDE + HEAD), "white")
    whole.paste(picture, (0, HEAD))
    ImageDraw.Draw(whole).text((2, 4), label, "black", font)
    headed.append(whole)
in_rows(headed, across=3).quantize(256).save(sys.argv[1], optimize=True)
