"""Time of pruned models at published sizes, with random weights: no checkpoint is needed.

    python benchmarks/latency.py --geometry llava-next-7b --budgets 160 320 640 --device cuda

One request is an image of noise and a prompt of random tokens. It goes through the same stations as
in a study (`prunesid.generate.stations`): its own image processing, vision tower, choice of tokens,
projector and the model's `generate()`, which makes as many tokens as it is told. Arms take turns.
Numbers are medians in milliseconds. "bound" is the speed-up to the first token that multiply-adds
give with the vision tower counted and the choice of tokens left out, "reached" what is measured of
it. A method that the model or the budget rules out is named with the reason and left out. Needs
torch, transformers and Pillow alone.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from PIL import Image

from prunesid.core.costs import STATIONS, account
from prunesid.core.registry import unknown
from prunesid.families.adapter import Prompt
from prunesid.families.base import Adapter
from prunesid.families.random_weights import random_adapter
from prunesid.generate.latency import Timing, measure
from prunesid.generate.stations import Pruning, Request, Served, serve
from prunesid.images.media import Clip
from prunesid.methods.registry import ENCODER, list_methods
from prunesid.study.clone import in_clone
from prunesid.study.config.hub_models import hub_models

ARMS = ("downsample", "tome", "random", "visionzip", "divprune", "cdpruner", "prunesid",
        "prunesid:matched", "prunesid:release", "fastv", "sparsevlm")  # fmt: skip
WHOLE = "all tokens"


def requests_of(options: argparse.Namespace, vocabulary: int) -> list[Request]:
    """Images (or clips) of noise, and prompts of random tokens."""
    random = np.random.default_rng(0)
    width, height = map(int, options.image.split("x"))
    before = options.text // 2
    found = []
    for number in range(options.requests):
        frames = random.integers(0, 256, (options.frames or 1, height, width, 3), dtype=np.uint8)
        medium: Any = Image.fromarray(frames[0])
        if options.frames:
            medium = Clip(frames, tuple(range(len(frames))), len(frames), 1.0)
        # The first tokens of a vocabulary have meanings of their own.
        ids = tuple(random.integers(1000, vocabulary - 1000, options.text).tolist())
        found.append(Request(str(number), [medium], Prompt((ids[:before], ids[before:]))))
    return found


def arms_of(options: argparse.Namespace) -> dict[str, Pruning]:
    """All tokens, by FlashAttention too where it is installed, and each method and budget."""
    from transformers.utils import is_flash_attn_2_available

    flash = options.device.startswith("cuda") and is_flash_attn_2_available()
    kernel = "sdpa" if flash else None
    arms = {WHOLE: Pruning(attention=kernel)}
    if flash:
        arms[f"{WHOLE}, FlashAttention"] = Pruning(attention="flash_attention_2")
    for budget in options.budgets:
        for name in options.methods:
            method, _, preset = name.partition(":")
            params = {"preset": preset} if preset else {}
            arms[f"{name} {budget}"] = Pruning(method, budget, params, attention=kernel)
    return arms


def macs(adapter: Adapter, pruning: Pruning, served: Served, text: int) -> float:
    """Multiply-adds of vision tower and prefill; 0 for a tower or its method without a formula."""
    sizes = adapter.sizes
    if sizes.encoder is None or pruning.place == ENCODER:
        return 0.0
    return account(
        sizes.decoder, served.entering, text, encoder=sizes.encoder,
        encoder_tokens=sizes.encoder_tokens, crops=served.crops,
    ).total_macs  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    add = parser.add_argument
    add("--geometry", required=True, help="a file of configs/, such as llava-next-7b, or a hub id")
    add("--methods", nargs="+", default=list(ARMS), help="names, with :preset where wanted")
    add("--budgets", nargs="+", type=int, default=[64, 128, 192])
    add("--batches", nargs="+", type=int, default=[1, 8])
    add("--requests", type=int, default=16)
    add("--rounds", type=int, default=1)
    add("--text", type=int, default=60, help="tokens of the prompt beside the image")
    add("--new-tokens", type=int, default=5)
    add("--image", default="672x672", help="width x height")
    add("--frames", type=int, default=0, help="of a clip in place of the image")
    add("--layers", type=int, help="of the language model, fewer than it has")
    add("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    add("--dtype", default="bfloat16")
    add("--json", type=Path, help="also write every batch's times to this file")
    options = parser.parse_args()
    known, name = hub_models(), options.geometry
    if name not in known:
        name = _models().get(name, name)
    if name not in known:
        sys.exit(f"--geometry: {unknown('model', options.geometry, [*_models(), *known])}")
    methods = sorted({own.partition(":")[0] for own in options.methods} - set(list_methods()))
    if methods:
        sys.exit(f"--methods: {unknown('method', methods[0], list_methods())}")
    adapter = random_adapter(known[name].config, options.device, options.dtype, options.layers)
    vocabulary = adapter.model.config.get_text_config().vocab_size
    layers = len(adapter.decoder.layers)
    requests, arms = requests_of(options, vocabulary), {}
    for arm, pruning in arms_of(options).items():
        try:
            serve(adapter, pruning, requests[:1], 1)
            arms[arm] = pruning
        except ValueError as error:
            print(f"left out: {arm}: {error}", file=sys.stderr)
    timings: dict[tuple[str, int], list[Timing]] = {}
    for timing in measure(
        adapter, arms, requests, batches=options.batches,
        rounds=options.rounds, max_new_tokens=options.new_tokens,
        min_new_tokens=options.new_tokens,
    ):  # fmt: skip
        timings.setdefault((timing.arm, timing.batch), []).append(timing)
    print(f"{name}, {layers} layers, {options.dtype}, {_device(options.device)}")
    columns = ["arm", "tokens", *STATIONS, "first token", "speed-up", "bound", "reached", "whole"]
    columns += ["KV MB", "peak GB", *(f"requests/s, {size} at once" for size in options.batches)]
    print(f"| {' | '.join(columns)} |\n|---|{'---:|' * (len(columns) - 1)}")
    whole = timings[WHOLE, options.batches[0]]
    for arm, pruning in arms.items():
        print(f"| {' | '.join(_row(adapter, arm, pruning, timings, whole, options))} |")
    if options.json:
        lines = [
            {"arm": arm, "batch": size, "seconds": dict(own.served.seconds)}
            for (arm, size), all_own in timings.items()
            for own in all_own
        ]
        options.json.write_text(json.dumps(lines, indent=1))


def _row(
    adapter: Adapter, arm: str, pruning: Pruning, timings: dict[tuple[str, int], list[Timing]],
    whole: list[Timing], options: argparse.Namespace,
) -> list[str]:  # fmt: skip
    own = timings[arm, options.batches[0]]
    served = own[0].served
    parts = [_median([1000 * each.served.seconds[name] for each in own]) for name in STATIONS]
    speed = _median([_first(a) / _first(b) for a, b in zip(whole, own, strict=True)])
    counted = macs(adapter, pruning, served, options.text)
    bound = macs(adapter, Pruning(), whole[0].served, options.text) / counted if counted else 0.0
    memory = max((each.served.memory or 0) for each in own)
    rates = [
        size / _median([sum(each.served.seconds.values()) for each in timings[arm, size]])
        for size in options.batches
    ]
    return [
        arm, f"{served.tokens:g}", *(f"{part:.1f}" for part in parts),
        f"{1000 * _median([_first(each) for each in own]):.1f}", f"{speed:.2f}",
        f"{bound:.2f}" if bound else "–", f"{100 * speed / bound:.0f} %" if bound else "–",
        f"{1000 * _median([sum(each.served.seconds.values()) for each in own]):.1f}",
        f"{served.kv_bytes / 1e6:.0f}", f"{memory / 1e9:.1f}", *(f"{rate:.2f}" for rate in rates),
    ]  # fmt: skip


def _models() -> dict[str, str]:
    """The model of each study of a published one in configs/."""
    studies = {path.stem: path for path in in_clone("configs").glob("*.yaml")}
    named = {name: yaml.safe_load(path.read_text()).get("model") for name, path in studies.items()}
    return {name: model for name, model in named.items() if model in hub_models()}


def _first(timing: Timing) -> float:
    return sum(timing.served.seconds[name] for name in ("encode", "select", "project", "prefill"))


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _device(device: str) -> str:
    return torch.cuda.get_device_name() if device.startswith("cuda") else "CPU"


if __name__ == "__main__":
    main()
