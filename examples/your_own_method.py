"""A method of your own in a dozen lines: the patches whose features are longest, drawn: own.png.

python examples/your_own_method.py photo.jpg "what is shown ?" prunesid/pocket/weights
"""

import sys

from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor

import prunesid
from prunesid.core.numerics import rank_descending
from prunesid.core.parameters import Param
from prunesid.core.record import keep
from prunesid.methods.features import register


@register("longest", params={"power": Param(2.0, float, minimum=1.0)})
def longest(record, budget, draws, *, power):
    """Keep the patches with the largest norm of the given power, in raster order."""
    norms = record.features.double().norm(p=power, dim=2)
    return keep(record, rank_descending(norms), budget)


path, question, name = sys.argv[1:]
model = AutoModelForImageTextToText.from_pretrained(
    name, use_safetensors=True, trust_remote_code=False
).eval()
processor = AutoProcessor.from_pretrained(name, trust_remote_code=False)
image = Image.open(path).convert("RGB")
text, images = prunesid.prepare(model, processor, question, [image])
inputs = processor(text=text, images=images, return_tensors="pt")

kept = []
with prunesid.pruned(model, processor, "longest", 64, power=1.0, kept=kept):
    output = model.generate(**inputs, do_sample=False, max_new_tokens=32)
answer = output[0, inputs["input_ids"].shape[1] :]
print(processor.decode(answer, skip_special_tokens=True))
prunesid.draw(image, kept[0]).save("own.png")
