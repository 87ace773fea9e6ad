"""The golden vectors against the methods: what the authors' own code returned, and what we return.

`tests/golden` holds the vectors, one file per method, and the inputs that they belong to. `measure`
runs the method of a file on every case of it, through what users call, and says which are equal.

    python tests/golden_cases.py

records how many are, and writes the tables of the documentation.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from golden import inputs
from torch import Tensor

from prunesid import VisionRecord, compress
from prunesid.images.medium import IMAGE, SUB_CROPS, Medium
from prunesid.images.records import ImageRecords
from prunesid.methods import decoder
from prunesid.methods.decoder import DecoderShape
from prunesid.methods.decoder.sparsevlm import raters
from prunesid.methods.decoder.view import View
from prunesid.methods.encoder.merging import match, merge
from prunesid.methods.features.prunesid import psca
from prunesid.study.report import fidelity
from prunesid.study.report.fidelity import Agreement

FOLDER = Path(__file__).parent / "golden"
FILES = sorted(path.stem for path in FOLDER.glob("*.json"))
# Sums and norms are rounded to 1e-4.
CHECKSUM = 3e-4
RECORD = "python tests/golden_cases.py"
Case = dict[str, Any]


@functools.cache
def vectors(name: str) -> dict[str, Any]:
    """A file of `tests/golden`."""
    return json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))


@functools.lru_cache(8)
def arrays(kind: str, seed: int, crop: int = 0) -> dict[str, Tensor]:
    """`inputs.make_case` as tensors."""
    return tensors(inputs.make_case(kind, seed, crop))


@functools.lru_cache(8)
def prompt(kind: str, seed: int) -> dict[str, Tensor]:
    """`inputs.make_llm_case` as tensors."""
    return tensors(inputs.make_llm_case(kind, seed))


def tensors(found: Mapping[str, np.ndarray]) -> dict[str, Tensor]:
    return {name: torch.from_numpy(value) for name, value in found.items()}


def record(kind: str, seed: int, crop: int = 0, tokens: int = inputs.T) -> VisionRecord:
    """What a tower leaves of a case, its first `tokens` patches."""
    case = arrays(kind, seed, crop)
    hidden, attention = case["H"], case["attn"][:, 0]
    logits = case["q_last"][0] @ case["k_last"].T / math.sqrt(inputs.D)
    own = slice(1, 1 + tokens)
    return VisionRecord(
        hidden[None, own],
        cls=hidden[None, 0],
        cls_attention=attention[None, :, own],
        keys=case["keys"][None, :, own],
        projected=case["E"][None, :tokens],
        relevance=case["text_cos"][None, :tokens],
        last_attention=logits.softmax(0)[None, own],
        last_keys=case["k_last"][None, own],
        first_cls_attention=case["attn0"][:, 0, own].mean(0)[None],
        image_ids=("golden",),
    )


def of(case: Case, **changes: Any) -> VisionRecord:
    """The record that a case is about."""
    return record(case["kind"], case["seed"], **changes)


def doubled(found: VisionRecord, case: Case) -> VisionRecord:
    return found.to(dtype=torch.float64) if case["dtype"] == "float64" else found


def close(found: Tensor, sums: Mapping[str, list[float]]) -> bool:
    """Whether tokens (N, D) have the checksums of a case."""
    wide = found.double()
    own = torch.stack([wide.sum(1), wide.norm(dim=1)])
    wanted = torch.tensor([sums["sum"], sums["norm"]], dtype=torch.float64)
    return own.shape == wanted.shape and bool((own - wanted).abs().max() <= CHECKSUM)


def index(found: Any) -> list[int]:
    return found.index[0, : int(found.count[0])].tolist()


def prunesid_llava(case: Case) -> bool:
    with solved_as(case):
        found = compress(
            of(case), "prunesid", budget=case["N"], preset="upstream", solver=solver(case)
        )
    wanted = case.get("kept_stable_argsort", case["kept"])
    facts = found.info
    return (
        [i + 1 for i in index(found)] == wanted
        and facts["group"][0].tolist() == case["group"]
        and math.isclose(float(facts["rho"]), case["rho"], abs_tol=1e-6)
        and math.isclose(float(facts["tau"]), case["tau"], abs_tol=1e-6)
    )


def prunesid_qwen(case: Case) -> bool:
    found_record = of(case, tokens=case["T"])
    bare = VisionRecord(found_record.features, image_ids=found_record.image_ids)
    with solved_as(case):
        found = compress(
            bare, "prunesid", budget=case["N"], preset="release_qwen", solver=solver(case)
        )
    facts = found.info
    return (
        index(found) == case.get("kept_stable_argsort", case["kept"])
        and int(found.count) == case["N_eff"]
        and facts["group"][0].tolist() == case["group"]
        and math.isclose(float(facts["rho"]), case["sim_mean"], abs_tol=1e-6)
        and math.isclose(float(facts["tau"]), case["tau"], abs_tol=1e-6)
    )


def solver(case: Case) -> str:
    return {"exact": "exact", "lowrank": "randomized"}[case["solver"]]


def solved_as(case: Case) -> AbstractContextManager[Any]:
    """The randomized solver starts from what torch.pca_lowrank drew in the official run."""

    def block(rows: int, columns: int, generator: torch.Generator) -> Tensor:
        drawn = torch.Generator().manual_seed(0)
        return torch.randn((rows, columns), generator=drawn).double()

    return patch.object(psca, "gaussian_block", block)


def visionzip(case: Case) -> bool:
    found = compress(of(case), "visionzip", budget=case["N"], preset="upstream")
    targets = found.info["selected"][0].nonzero()[:, 0].tolist()
    patches = [i - 1 for i in case["dominant_raster"]]
    return (
        index(found) == patches + [-1] * case["contextual"]
        and targets == case["target_patches"]
        and close(found.tokens[0], case["tokens"])
    )


def divprune(case: Case) -> bool:
    greedy, sent = (
        compress(of(case), "divprune", budget=case["N"], preset="upstream", order=order)
        for order in ("selection", "raster")
    )
    return index(greedy) == case["greedy"] and index(sent) == case["sent"]


def scope(case: Case) -> bool:
    whole = doubled(of(case), case)
    sent = compress(whole, "scope", budget=case["N"], preset="upstream")
    # A smaller budget keeps a prefix of the greedy order.
    half = compress(whole, "scope", budget=case["N"] // 2, preset="upstream")
    return index(sent) == case["sent"] and index(half) == sorted(case["greedy"][: case["N"] // 2])


def cdpruner(case: Case) -> bool:
    wide = replace(of(case), projected=arrays(case["kind"], case["seed"])["E_wide"][None])
    found = compress(wide, "cdpruner", budget=case["N"], relevance="question")
    return index(found) == case["kept"]


def holov(case: Case) -> bool:
    whole = of(case)
    if case["features"] == "E":
        whole = replace(whole, features=whole.projected, cls=None)
    kept = compress(whole, "holov", budget=case["N"], preset="upstream", runs=case["num_patches"])
    filled = compress(whole, "holov", budget=case["N"], runs=case["num_patches"])
    zeros = kept.tokens[0, kept.index[0] < 0]
    real = {i for i in case["kept"] if i >= 0}
    return (
        index(kept) == case["kept"]
        and len(zeros) == case["zero_padding"]
        and not zeros.any()
        and real <= set(index(filled))
        and len(set(index(filled))) == case["N"]
    )


def vispruner(case: Case) -> bool:
    found = compress(
        doubled(of(case), case),
        "vispruner",
        budget=case["N"],
        preset="upstream",
        important=case["important_ratio"],
    )
    return index(found) == case["kept"]


def hired(case: Case) -> bool:
    if case["path"] == "llava-1.5":
        found = compress(of(case), "hired", budget=case["N"], preset="upstream")
        exact = compress(of(case), "hired", budget=case["N"])
        return index(found) == index(exact) == case["kept"]
    # The block that gives the order is `attn`, and the one that shares `attn0`.
    group = VisionRecord.cat([of(case, crop=crop) for crop in range(5)])
    group = replace(group, grid=(inputs.SIDE, inputs.SIDE))
    whole = [0, 0, inputs.SIDE, inputs.SIDE]
    layout = {"view": "whole", SUB_CROPS: {"grid": [2, 2], "parts": [whole] * 5}}
    medium = Medium(IMAGE, (0, 1, 2, 3, 4), layout)
    records = ImageRecords((group,), ((0, 1, 2, 3, 4),), {"a": (medium,)})
    budget = round(5 * inputs.T * case["rate"])
    kept = records.compress("hired", budget=budget, preset="upstream", alpha=case["alpha"])
    rows = zip(kept.index, kept.count.tolist(), strict=True)
    return [row[:count].tolist() for row, count in rows] == case["kept"]


def prumerge(case: Case) -> bool:
    variant = {
        ("advanced", True): "adaptive",
        ("advanced", False): "fixed",
        ("plus", True): "adaptive_plus",
        ("plus", False): "plus",
    }[case["variant"], case["adaptive"]]
    budget = case["n_out"] if variant == "fixed" else 2 * case["M_top"]
    found = compress(of(case), "prumerge", budget=budget, preset="upstream", variant=variant)
    chosen = found.info["selected"][0].nonzero()[:, 0].tolist()
    return chosen == sorted(set(case["selected"])) and close(found.tokens[0], case["tokens"])


def tome(case: Case) -> bool:
    whole = arrays(case["kind"], case["seed"])
    tokens = whole["H"][None]
    metric = tokens if case["metric"] == "H" else whole["keys"].mean(0)[None]
    size, sources = torch.ones(tokens.shape[:2]), [[i] for i in range(tokens.shape[1])]
    equal = True
    for wanted in (case, case["second"]):
        matching = match(metric, case["r"])
        places = matching.places(tokens.shape[1])[0].tolist()
        tokens, size = merge(tokens, size, matching)
        rows: list[list[int]] = [[] for _ in range(tokens.shape[1])]
        for place, own in zip(places, sources, strict=True):
            rows[place] += own
        sources, metric = [sorted(row) for row in rows], tokens
        equal &= sources == wanted["sources"] and size[0].tolist() == wanted["sizes"]
        equal &= close(tokens[0], wanted["tokens"])
    return equal


def view(
    case: Case, attention: Tensor, hidden: Tensor | None = None, position: Tensor | None = None
) -> View:
    """What a late method sees of a prompt, its text's attention (H, 40, S) given.

    hidden    (V, E) of the visual tokens, else those of the prompt
    position  (V,) whatever tells the visual tokens apart
    """
    found = prompt(case["kind"], case["seed"])
    inputs_, text = found["h"][inputs.SYS : inputs.SYS + inputs.T], found["h"][-inputs.TEXT :]
    visual = inputs_ if hidden is None else hidden
    count = attention.shape[2]
    keys = found["k"].transpose(0, 1).flatten(1)
    # Queries whose products with unit keys are the logarithms give back the attention itself.
    tiny = torch.finfo(attention.dtype).tiny
    return View(
        source=torch.arange(len(visual)),
        position=torch.arange(len(visual))[:, None] if position is None else position[:, None],
        hidden=visual,
        tokens=visual,
        text_hidden=text,
        keys=keys[inputs.SYS : inputs.SYS + inputs.T],
        text_keys=keys[-inputs.TEXT :],
        inputs=inputs_,
        text_inputs=text,
        cls_attention=None,
        norm=lambda states: states,
        _queries=attention.double().clamp_min(tiny).log().transpose(0, 1),
        _all_keys=torch.eye(count, dtype=torch.float64).expand(len(attention), -1, -1),
        _text=torch.arange(count - inputs.TEXT, count),
        _visual=torch.arange(inputs.SYS, inputs.SYS + len(visual)),
        _scaling=1.0,
    )


LLAMA = DecoderShape(32, inputs.T)


def fastv(case: Case) -> bool:
    if case["file"] == "fastv_kvcache":
        schedule = decoder.plan("fastv", LLAMA, None, k=case["K"], keep=len(case["kept"]))
    else:
        schedule = decoder.plan("fastv", LLAMA, case["R"], preset="upstream")
    (stage,) = schedule.stages
    seen = view(case, prompt(case["kind"], case["seed"])["attn_text"])
    return stage.after == case["K"] - 1 and stage.choose(seen).keep.tolist() == case["kept"]


def dart(case: Case) -> bool:
    flag = case.get("max_num_trunction") is not None
    schedule = decoder.plan(
        "dart", LLAMA, case["N"], preset="upstream", count="flag" if flag else "ratio"
    )
    (stage,) = schedule.stages
    seen = view(case, prompt(case["kind"], case["seed"])["attn_text"])
    return stage.leaves == case["n"] and stage.choose(seen).keep.tolist() == case["kept"]


def sparsevlm(case: Case) -> bool:
    schedule = decoder.plan("sparsevlm", LLAMA, case["RETAIN_TOKN"], preset="upstream", noise=0.0)
    hidden = prompt(case["kind"], case["seed"])["h"][inputs.SYS : inputs.SYS + inputs.T]
    equal = (
        raters(hidden, prompt(case["kind"], case["seed"])["h"][-inputs.TEXT :]).tolist()
        == (case["raters"])
    )
    for number, (stage, wanted) in enumerate(zip(schedule.stages, case["stages"], strict=True)):
        attention = prompt(case["kind"], case["seed"])["attn_text"]
        if number:
            attention = torch.from_numpy(
                inputs.make_text_attention(case["kind"], case["seed"], number, len(hidden))
            )
        choice = stage.choose(view(case, attention, hidden, torch.arange(len(hidden))))
        merged, centers = choice.merged, choice.positions
        assert merged is not None and centers is not None
        equal &= stage.after == wanted["layer"]
        equal &= choice.keep.tolist() == wanted["kept"]
        equal &= centers[:, 0].tolist() == wanted["centres"]
        equal &= close(merged, wanted["merged"])
        hidden = torch.cat([hidden[choice.keep], merged.to(hidden.dtype)])
        equal &= len(hidden) == wanted["visual_out"] == stage.leaves
    return equal


def mustdrop(case: Case) -> bool:
    schedule = decoder.plan(
        "mustdrop", LLAMA, None, global_threshold=case["overall"],
        individual_threshold=case["individual"], key_share=case["share"],
    )  # fmt: skip
    seen = view(case, prompt(case["kind"], case["seed"])["attn_text"])
    important = arrays(case["kind"], case["seed"])["attn"][:, 0, 1:].double().mean(0)
    found = schedule.stages[0].choose(replace(seen, cls_attention=important))
    return found.keep.tolist() == case["kept"]


CHECKS: dict[str, Callable[[Case], bool]] = {
    "cdpruner": cdpruner,
    "dart": dart,
    "divprune": divprune,
    "fastv": fastv,
    "hired": hired,
    "mustdrop": mustdrop,
    "holov": holov,
    "prumerge": prumerge,
    "prunesid_llava": prunesid_llava,
    "prunesid_qwen": prunesid_qwen,
    "scope": scope,
    "sparsevlm": sparsevlm,
    "tome": tome,
    "visionzip": visionzip,
    "vispruner": vispruner,
}


def stable(case: Case) -> bool:
    """Whether the official code gave the same at the smallest noise, in every repetition."""
    _, least, repetitions = case.get("stable", (1, 1, 1))
    return least == repetitions


def measure(name: str) -> Iterator[tuple[Case, bool]]:
    """Every case of a file, and whether the method's result equals it."""
    check = CHECKS[name]
    for case in vectors(name)["cases"]:
        yield case, check(case)


def label(case: Case) -> str:
    """A case by the numbers and words that tell it from the others of its file."""
    return " ".join(
        f"{name}={value}"
        for name, value in case.items()
        if isinstance(value, str | int | float) and name not in ("n", "n_out", "N_eff")
    )


def agreement(measured: Iterable[tuple[bool, bool, str]]) -> Agreement:
    """The counts of (stable, equal, label) of the cases of a file."""
    found = [(steady, equal) for steady, equal, _ in measured]
    return Agreement(
        cases=len(found),
        equal=sum(equal for _, equal in found),
        stable=sum(steady for steady, _ in found),
        stable_equal=sum(steady and equal for steady, equal in found),
    )


def compared(name: str) -> tuple[tuple[bool, bool, str], ...]:
    """(stable, equal, label) of every case of a file."""
    return tuple((stable(case), equal, label(case)) for case, equal in measure(name))


if __name__ == "__main__":
    counts = {name: vars(agreement(compared(name))) for name in FILES}
    fidelity.RECORDED.write_text(json.dumps(counts, indent=1) + "\n", encoding="utf-8")
    fidelity.write_pages()
