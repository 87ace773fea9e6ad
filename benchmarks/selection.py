"""How long does each method take to choose the tokens of an image?

    python benchmarks/selection.py [--rounds 5] [--device cpu] [--threads 1]

Records are random, of LLaVA-1.5-7B's sizes: 576 tokens of 1024 channels, 16 heads, 4096 channels after
the projector, a few nearly equal tokens among them, so that suppression has something to do. A cell is
the median over rounds of the seconds of one `compress` call, divided by its images, in milliseconds;
behind it stands the ratio to PruneSID at the same budget and batch.
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

import prunesid

TOKENS, WIDTH, HEADS, PROJECTED = 576, 1024, 16, 4096
BUDGETS, BATCHES = (64, 128, 192), (1, 5)
REFERENCE = "prunesid"


def record_of(images: int, device: str) -> prunesid.VisionRecord:
    """Features with 60 loose clusters per image, and everything else that a method may read."""
    random = torch.Generator().manual_seed(images)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(images, *shape, generator=random)

    place = torch.randint(60, (images, TOKENS), generator=random)
    centers = normal(60, WIDTH)
    features = centers.gather(1, place[:, :, None].expand(-1, -1, WIDTH))
    features = features + 0.5 * normal(TOKENS, WIDTH)
    projected = features @ torch.randn(WIDTH, PROJECTED, generator=random) / WIDTH**0.5
    record = prunesid.VisionRecord(
        features=features,
        cls=normal(WIDTH),
        cls_attention=normal(HEADS, TOKENS).softmax(-1),
        keys=normal(HEADS, TOKENS, WIDTH // HEADS),
        projected=projected,
        last_attention=normal(TOKENS).softmax(-1),
        last_keys=normal(TOKENS, WIDTH),
        grid=(24, 24),
    )
    return record.to(device=device)


def seconds(record: prunesid.VisionRecord, method: str, budget: int) -> float:
    """One call, the device's queue empty before and after."""
    if record.features.is_cuda:
        torch.cuda.synchronize()
    begun = time.perf_counter()
    prunesid.compress(record, method, budget=budget)
    if record.features.is_cuda:
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
    methods = prunesid.list_methods()
    cells = [(batch, budget) for batch in BATCHES for budget in BUDGETS]
    records = {batch: record_of(batch, options.device) for batch in BATCHES}
    times: dict[tuple[str, int, int], list[float]] = {}
    for number in range(options.rounds + 1):  # the first round warms up
        for method in methods:
            for batch, budget in cells:
                took = seconds(records[batch], method, budget) / batch
                if number:
                    times.setdefault((method, batch, budget), []).append(1000 * took)
    median = {key: statistics.median(values) for key, values in times.items()}
    heads = " | ".join(f"batch {batch}, {budget}" for batch, budget in cells)
    print(f"| method | {heads} |\n|---|{'---:|' * len(cells)}")
    for method in sorted(methods, key=lambda name: median[name, 1, BUDGETS[0]]):
        shown = [
            f"{median[method, b, n]:.1f} ({median[method, b, n] / median[REFERENCE, b, n]:.2f})"
            for b, n in cells
        ]
        print(f"| `{method}` | {' | '.join(shown)} |")


if __name__ == "__main__":
    main()
