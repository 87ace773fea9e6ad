"""Prune a model of transformers that you have, and see what it keeps: kept.png.

python examples/prune_your_model.py photo.jpg "what is shown ?" llava-hf/llava-1.5-7b-hf
"""

import sys

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid

path, question, name = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(
    name, use_safetensors=True, trust_remote_code=False
).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
image = Image.open(path).convert("RGB")

text, images = prunesid.prepare(model, processor, question, [image])
inputs = processor(text=text, images=images, return_tensors="pt")
kept = []
with prunesid.pruned(model, processor, method="prunesid", budget=64, kept=kept):
    output = model.generate(**inputs, do_sample=False, max_new_tokens=32)

answer = output[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
prunesid.draw(image, kept[0]).save("kept.png")
