"""Time of each selection beside a plain implementation of the method's published description.

    python benchmarks/plain.py [--rounds 15] [--threads 1]

Both run interleaved, in one process, on the features of one image of LLaVA-1.5-7B's sizes. The
plain ones are short and direct: 32-bit floats, torch's own decompositions, loops as the papers
state them. A cell is the plain time divided by ours, from medians, and both in milliseconds. Above
1, ours is faster.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from selection import BUDGETS, Images
from torch import Tensor

import prunesid


def prunesid_paper(record: prunesid.VisionRecord, budget: int) -> Tensor:
    """Sections 3.2 and 3.3 of the paper: groups, suppression in each, shares of the survivors."""
    features = record.features[0]
    centered = features.sigmoid()
    centered = centered - centered.mean(dim=0)
    *_, directions = torch.linalg.svd(centered.T, full_matrices=False)
    score, group = directions[: budget // 4].abs().max(dim=0)
    unit = F.normalize(features, dim=1)
    similarity = unit @ unit.T
    tokens = len(features)
    rho = (similarity.sum() - similarity.trace()) / (tokens * (tokens - 1))
    threshold = budget / 32 * rho
    survivors: list[list[Tensor]] = []
    for number in range(budget // 4):
        left = (group == number).nonzero()[:, 0]
        left = left[score[left].argsort(descending=True)]
        kept: list[Tensor] = []
        while len(left):
            kept.append(left[0])
            left = left[1:][similarity[left[0], left[1:]] <= threshold]
        survivors.append(kept)
    sizes = [len(kept) for kept in survivors]
    shares = [size * budget // sum(sizes) for size in sizes]
    pairs = zip(survivors, shares, strict=True)
    return torch.stack([token for kept, share in pairs for token in kept[:share]])


def divprune(record: prunesid.VisionRecord, budget: int) -> Tensor:
    """The token farthest from all others, then always the one farthest from those kept."""
    assert record.projected is not None
    unit = F.normalize(record.projected[0], dim=1)
    distance = 1 - unit @ unit.T
    kept: list[int] = []
    for place in range(budget):
        if place:
            nearest = distance[kept].amin(dim=0)
            nearest[kept] = -1
        else:
            nearest = distance.topk(2, dim=0, largest=False).values[1]
        kept.append(int(nearest.argmax()))
    return torch.tensor(kept)


def cdpruner(record: prunesid.VisionRecord, budget: int) -> Tensor:
    """Greedy MAP inference of a DPP, by the recursion of Chen et al."""
    assert record.projected is not None and record.relevance is not None
    relevance = record.relevance[0]
    relevance = (relevance - relevance.min()) / (relevance.max() - relevance.min())
    unit = F.normalize(record.projected[0], dim=1)
    kernel = relevance[:, None] * (unit @ unit.T) * relevance
    gain, rows = kernel.diagonal().clone(), kernel.new_zeros((budget, len(kernel)))
    kept: list[int] = []
    for place in range(budget):
        pick = int(gain.argmax())
        kept.append(pick)
        known = rows[:place]
        rows[place] = (kernel[pick] - known[:, pick] @ known) / gain[pick].sqrt()
        gain = gain - rows[place] ** 2
        gain[pick] = -torch.inf
    return torch.tensor(kept)


def scope(record: prunesid.VisionRecord, budget: int) -> Tensor:
    """The token that adds most coverage times saliency, again and again."""
    assert record.cls_attention is not None
    unit = F.normalize(record.features[0], dim=1)
    similarity = unit @ unit.T
    saliency = record.cls_attention[0].mean(dim=0)
    covered = torch.zeros_like(saliency)
    kept: list[int] = []
    for _ in range(budget):
        gain = (similarity - covered[:, None]).clamp(min=0).sum(dim=0) * saliency
        gain[kept] = -torch.inf
        kept.append(int(gain.argmax()))
        covered = torch.maximum(covered, similarity[kept[-1]])
    return torch.tensor(kept)


def vispruner(record: prunesid.VisionRecord, budget: int) -> Tensor:
    """Half by attention; from the rest, the most duplicated tokens are removed in passes of 8."""
    assert record.cls_attention is not None
    order = record.cls_attention[0].mean(dim=0).argsort(descending=True)
    kept, left = order[: budget // 2], order[budget // 2 :]
    unit = F.normalize(record.features[0], dim=1)
    while len(left) > budget - len(kept):
        even, odd = left[::2], left[1::2]
        duplicate = (unit[even] @ unit[odd].T).amax(dim=1)
        removed = min(8, len(left) - budget + len(kept))
        left = torch.cat([even[duplicate.argsort(descending=True)[removed:]], odd])
    return torch.cat([kept, left])


PLAIN: dict[str, Callable[[prunesid.VisionRecord, int], Tensor]] = {
    "prunesid": prunesid_paper,
    "prunesid, matched": prunesid_paper,
    "divprune": divprune,
    "cdpruner": cdpruner,
    "scope": scope,
    "vispruner": vispruner,
}


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    record = Images(1, "cpu").record
    times: dict[tuple[str, int, str], list[float]] = {}
    for number in range(options.rounds + 1):  # the first round warms up
        for name, plain in PLAIN.items():
            method, _, preset = name.partition(", ")
            params: dict[str, Any] = {"preset": preset} if preset else {}
            for budget in BUDGETS:
                begun = time.perf_counter()
                plain(record, budget)
                between = time.perf_counter()
                prunesid.compress(record, method, budget=budget, **params)
                ended = time.perf_counter()
                if number:
                    times.setdefault((name, budget, "plain"), []).append(between - begun)
                    times.setdefault((name, budget, "ours"), []).append(ended - between)
    print("| method | " + " | ".join(map(str, BUDGETS)) + " |\n|---|" + "---:|" * len(BUDGETS))
    for name in PLAIN:
        cells = []
        for budget in BUDGETS:
            theirs, ours = (
                1000 * statistics.median(times[name, budget, which]) for which in ("plain", "ours")
            )
            cells.append(f"{theirs / ours:.2f} ({theirs:.1f} / {ours:.1f})")
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
