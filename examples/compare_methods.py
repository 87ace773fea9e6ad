"""Five methods on your image: their answers, and what each keeps, side by side: compared.png.

python examples/compare_methods.py photo.jpg "what is shown ?" prunesid/pocket/weights --budget 64
"""

import argparse

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid
from prunesid.images.patches import in_rows

METHODS = ("prunesid", "divprune", "visionzip", "cls_topk", "grid")

parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
parser.add_argument("image")
parser.add_argument("question")
parser.add_argument("model", help="a folder, or a name on the Hugging Face hub")
parser.add_argument("--budget", type=int, default=64, help="tokens kept of the image")
parser.add_argument("--methods", nargs="+", default=METHODS, choices=prunesid.list_methods())
given = parser.parse_args()

model = AutoModelForImageTextToText.from_pretrained(
    given.model, use_safetensors=True, trust_remote_code=False
).eval()
processor = AutoProcessor.from_pretrained(given.model, trust_remote_code=False)
image = Image.open(given.image).convert("RGB")
text, images = prunesid.prepare(model, processor, given.question, [image])
inputs = processor(text=text, images=images, return_tensors="pt")


def answer() -> str:
    """What the model answers now."""
    output = model.generate(**inputs, do_sample=False, max_new_tokens=32)
    new = output[0, inputs["input_ids"].shape[1] :]
    return processor.decode(new, skip_special_tokens=True).strip()


print(f"{'all tokens':12}{answer()}")
pictures = [image]
for method in given.methods:
    kept: list[prunesid.KeptMedium] = []
    with prunesid.pruned(model, processor, method, given.budget, kept=kept):
        found = answer()
    print(f"{method:12}{found}  ({kept[0].tokens} tokens)")
    pictures.append(prunesid.draw(image, kept[0]))
in_rows(pictures, across=3).save("compared.png")
