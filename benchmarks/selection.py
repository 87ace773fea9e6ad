"""Time that each method takes to choose the tokens of an image.

    python benchmarks/selection.py [--rounds 5] [--device cpu] [--threads 1]

The inputs are random, with the sizes of LLaVA-1.5-7B: 576 tokens of 1024 channels, 16 heads and 24
blocks, 4096 channels after the projector, and a language model of 32 layers and 32 heads with 40
text tokens on either side of the image. Some tokens are nearly equal, so that suppression has work
to do. A cell is the median over rounds of the time per image in milliseconds, followed by the ratio
to PruneSID at the same budget and batch. The timed work depends on where a method acts:

    features  one `compress` call
    encoder   matching and merging in all blocks (`tome`), or resizing the pixels (`downsample`)
    decoder   the choices at all stages for one question, the text's attention included; no number
              if the method's first layers alone exceed the budget
"""

from __future__ import annotations

import argparse
import math
import statistics
import time

import torch
import torch.nn.functional as F

import prunesid
from prunesid.core.costs import EncoderShape
from prunesid.methods import decoder, encoder, features
from prunesid.methods.decoder.view import View
from prunesid.methods.encoder.merging import match, merge
from prunesid.methods.registry import DECODER, ENCODER, list_methods

TOKENS, WIDTH, HEADS, PROJECTED = 576, 1024, 16, 4096
PIXELS, PATCH, BLOCKS = 336, 14, 24
LAYERS, LLM_HEADS, TEXT = 32, 32, 40
BUDGETS, BATCHES = (64, 128, 192), (1, 5)
REFERENCE = "prunesid"
# With MustDrop's published thresholds, its counts depend on the prompt.
PARAMS: dict[str, dict[str, object]] = {"mustdrop": {"rule": "budget"}}


class Images:
    """A batch of images on a device, with all inputs that a method may read."""

    def __init__(self, count: int, device: str) -> None:
        self.count, self.device = count, device
        self._random = torch.Generator().manual_seed(count)
        self.record = self._record().to(device=device)
        self.pixels = self._normal(count, 3, PIXELS, PIXELS)
        self.keys = self._normal(count, 1 + TOKENS, WIDTH // HEADS)
        self.views: dict[int, View] = {}

    def choose(self, method: str, budget: int) -> None:
        """Run the method's choice for every image; ValueError if it cannot meet the budget."""
        if method in features.list_feature_methods():
            prunesid.compress(self.record, method, budget=budget)
        elif method in list_methods(ENCODER):
            self._encode(method, budget)
        else:
            shape = decoder.DecoderShape(LAYERS, TOKENS)
            schedule = decoder.plan(method, shape, budget, **PARAMS.get(method, {}))
            for _ in range(self.count):
                left = TOKENS
                for stage in schedule.stages:
                    stage.choose(self._view(left))
                    left = stage.leaves or left

    def _encode(self, method: str, budget: int) -> None:
        shape = EncoderShape(BLOCKS, read=BLOCKS - 1, side=PIXELS // PATCH)
        plan = encoder.plan(method, shape, budget)
        if plan.side < shape.side:
            size = plan.side * PATCH
            F.interpolate(self.pixels, (size, size), mode="bicubic", antialias=True)
            return
        tokens, keys = F.pad(self.record.features, (0, 0, 1, 0)), self.keys
        sizes = tokens.new_ones(tokens.shape[:2])
        for merged in plan.merged:
            tokens, sizes = merge(tokens, sizes, match(keys, merged))
            keys = keys[:, : tokens.shape[1]]

    def _record(self) -> prunesid.VisionRecord:
        """Features with 60 loose clusters per image."""
        place = torch.randint(60, (self.count, TOKENS), generator=self._random)
        centers = self._normal(self.count, 60, WIDTH)
        features = centers.gather(1, place[:, :, None].expand(-1, -1, WIDTH).to(self.device))
        features = features + 0.5 * self._normal(self.count, TOKENS, WIDTH)
        return prunesid.VisionRecord(
            features=features,
            cls=self._normal(self.count, WIDTH),
            cls_attention=self._normal(self.count, HEADS, TOKENS).softmax(-1),
            keys=self._normal(self.count, HEADS, TOKENS, WIDTH // HEADS),
            projected=features @ self._normal(WIDTH, PROJECTED) / WIDTH**0.5,
            last_attention=self._normal(self.count, TOKENS).softmax(-1),
            last_keys=self._normal(self.count, TOKENS, WIDTH),
            relevance=self._normal(self.count, TOKENS),
            grid=(24, 24),
        )

    def _view(self, visual: int) -> View:
        """The view of one question with so many visual tokens left."""
        if visual not in self.views:
            length, channels = TEXT + visual + TEXT, PROJECTED // LLM_HEADS
            hidden = self._normal(length, PROJECTED)
            keys = self._normal(LLM_HEADS, length, channels)
            places = torch.arange(length, device=self.device)
            image, text = places[TEXT:-TEXT], places[-TEXT:]
            inputs = self._normal(TOKENS, PROJECTED)
            self.views[visual] = View(
                source=image - TEXT,
                position=image[:, None],
                hidden=hidden[image],
                tokens=hidden[image],
                text_hidden=hidden[text],
                keys=keys[:, image].transpose(0, 1).flatten(1),
                text_keys=keys[:, text].transpose(0, 1).flatten(1),
                inputs=inputs,
                text_inputs=inputs[:TEXT],
                cls_attention=self._normal(TOKENS).softmax(0),
                norm=torch.nn.RMSNorm(PROJECTED, device=self.device),
                _queries=self._normal(TEXT, LLM_HEADS, channels),
                _all_keys=keys,
                _text=text,
                _visual=image,
                _scaling=channels**-0.5,
            )
        return self.views[visual]

    def _normal(self, *shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=self._random).to(self.device)


@torch.no_grad()
def seconds(images: Images, method: str, budget: int) -> float:
    """Time of one choice, with the device's queue empty before and after."""
    cuda = images.device.startswith("cuda")
    if cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    images.choose(method, budget)
    if cuda:
        torch.cuda.synchronize()
    return time.perf_counter() - begun


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    places = {
        "features": features.list_feature_methods(),
        "encoder": list_methods(ENCODER),
        "decoder": list_methods(DECODER),
    }
    methods = [(place, method) for place, names in places.items() for method in names]
    cells = [(batch, budget) for batch in BATCHES for budget in BUDGETS]
    images = {batch: Images(batch, options.device) for batch in BATCHES}
    times: dict[tuple[str, int, int], list[float]] = {}
    for number in range(options.rounds + 1):  # the first round warms up
        for _, method in methods:
            for batch, budget in cells:
                try:
                    took = seconds(images[batch], method, budget) / batch
                except ValueError:
                    took = math.nan
                if number:
                    times.setdefault((method, batch, budget), []).append(1000 * took)
    median = {key: statistics.median(values) for key, values in times.items()}

    def shown(method: str, batch: int, budget: int) -> str:
        own = median[method, batch, budget]
        ratio = own / median[REFERENCE, batch, budget]
        return "–" if math.isnan(own) else f"{own:.1f} ({ratio:.2f})"

    heads = " | ".join(f"batch {batch}, {budget}" for batch, budget in cells)
    print(f"| method | acts on | {heads} |\n|---|---|{'---:|' * len(cells)}")
    for place, method in sorted(methods, key=lambda each: median[each[1], 1, BUDGETS[-1]]):
        row = " | ".join(shown(method, *cell) for cell in cells)
        print(f"| `{method}` | {place} | {row} |")


if __name__ == "__main__":
    main()
