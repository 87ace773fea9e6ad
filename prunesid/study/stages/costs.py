"""The cost of a question under each arm of a benchmark, by counting (`prunesid.core.costs`).

A question is counted as if it were asked alone: the vision tower on its image, the choice of
tokens, and the prompt through the language model, without the answer's own tokens. The questions of
an image share the first two in a study, and the prompt up to the image. If tokens are chosen by
image and question, they share the tower alone, and each question's own encoding counts.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from prunesid.core.costs import Sizes, account
from prunesid.core.crops import BEFORE, BY_CLIP, BY_CROP, SCOPE
from prunesid.core.files import atomic
from prunesid.core.questions import Answer, read_answers
from prunesid.images.medium import SUB_CROPS
from prunesid.images.pools import image_pool
from prunesid.images.records import shared_out
from prunesid.images.relevance import encoders_of
from prunesid.methods import features as methods
from prunesid.study.config.arm import Arm
from prunesid.study.files.costs import COLUMNS
from prunesid.study.files.features import Head, read_head
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_shards
from prunesid.study.stages.encoder_costs import Pass, passes_of


def write_costs(
    features: Sequence[Path],
    answers: Sequence[Path],
    arms: Iterable[Arm],
    store: Store,
    output: Path,
) -> None:
    """A CSV with a line per arm; means over the questions of the benchmark.

    features, answers  of the benchmark's shards

    text_mean       tokens of the prompt that are not visual
    kv_mean         visual tokens in the caches when decoding starts, summed over layers
    encoder_macs, selection_macs, llm_macs  multiply-adds; empty where there is no formula
    total_macs      sum of those that are there
    """
    heads = [read_head(path) for path in features]
    crops = {
        name: tuple(head.sizes[row] for medium in media for row in medium.rows)
        for head in heads
        for name, media in head.inputs.items()
    }
    keys = read_shards(answers)
    lines = []
    for arm in arms:
        given = [answer for key in keys[arm.name] for answer in read_answers(store.get(key))]
        own = [passes_of(arm, head) for head in heads]
        passes = {name: each for part in own for name, each in (part or {}).items()}
        pools = {name: own for head in heads for name, own in pools_of(arm, head).items()}
        lines.append(
            {"arm": arm.name} | spent(arm, given, heads[0].model_sizes, crops, passes, pools)
        )
    with atomic(output) as temporary:
        table = pd.DataFrame(lines, columns=["arm", *COLUMNS])
        table.to_csv(temporary, index=False, float_format="%.10g", lineterminator="\n")


def pools_of(arm: Arm, head: Head) -> Mapping[str, tuple[int, ...]]:
    """{input: how many tokens each of the arm's choices is made from}; {} without such choices."""
    if not arm.selects or arm.encodes:
        return {}
    chosen = {**head.crops, **arm.crops}
    crops = methods.crops_of(arm.method, chosen, **arm.params)
    sizes, grids = head.sizes, head.row_grids
    found = {}
    for name, media in head.inputs.items():
        own: list[int] = []
        for medium in media:
            if SUB_CROPS not in medium.layout and chosen.get(SCOPE) == BY_CLIP:
                own.append(sum(sizes[row] for row in medium.rows))
            elif SUB_CROPS not in medium.layout:
                own += [sizes[row] for row in medium.rows]
            elif crops.scope == BY_CROP:
                parts = medium.parts(grids[medium.rows[0]], crops.unpad == BEFORE)
                own += [part.size for part in parts if part.size]
            else:
                own.append(len(image_pool(medium, grids[medium.rows[0]], crops)))
        found[name] = tuple(own)
    return found


def spent(
    arm: Arm,
    answers: Sequence[Answer],
    sizes: Sizes,
    crops: Mapping[str, tuple[int, ...]],
    passes: Mapping[str, Pass] | None = None,
    pools: Mapping[str, tuple[int, ...]] | None = None,
) -> dict[str, float | None]:
    """The `COLUMNS` of an arm, from its answers.

    crops   the patches of every image's crops
    passes  multiply-adds of every image's encoder pass, if the arm has its own and a formula
    pools   the pools of every image, as `pools_of` gives them; None: its crops
    """
    tower, tokens = sizes.encoder, sizes.encoder_tokens
    alike = Counter(
        (
            a.tokens, a.text, a.entering, a.cached, a.selection_macs, crops[a.image_id],
            (passes or {}).get(a.image_id), (pools or {}).get(a.image_id, crops[a.image_id]),
        )
        for a in answers
    )  # fmt: skip
    sums: Counter[str] = Counter()
    uncounted = {"encoder_macs"} if tower is None else set()
    for (visual, text, entering, cached, inside, patches, own, among), number in alike.items():
        layers = [int(visual)] * sizes.decoder.layers if entering is None else entering
        choosing = inside
        if own is not None:
            choosing = own.choice
        elif inside is None:
            choosing = _choosing(arm, int(visual), sizes, among)
        uncounted |= {"selection_macs"} if choosing is None else set()
        found = account(
            sizes.decoder, layers, text, cached=cached, encoder=tower, encoder_tokens=tokens,
            crops=len(patches), selection_macs=choosing or 0,
        )  # fmt: skip
        if own is not None:
            found = replace(found, encoder_macs=own.encoder)
        values: Mapping[str, int] = {
            "text_mean": text,
            "kv_mean": found.kv_entries,
            "encoder_macs": found.encoder_macs,
            "selection_macs": found.selection_macs,
            "llm_macs": found.llm_macs,
            "total_macs": found.total_macs,
        }
        for name, value in values.items():
            sums[name] += number * value
    return {name: None if name in uncounted else sums[name] / len(answers) for name in COLUMNS}


def _choosing(arm: Arm, kept: int, sizes: Sizes, pools: Sequence[int]) -> int | None:
    """Multiply-adds of choosing `kept` tokens before the language model, evenly among `pools`."""
    if arm.is_vanilla:
        return 0
    if arm.encodes:
        return None
    encoders = encoders_of(arm.asked if kept < sum(pools) else (), sizes.text)
    total = sum(sizes.asking_macs(encoder) for encoder in encoders)
    shares = shared_out(min(max(kept, len(pools)), sum(pools)), pools)
    for size, share in zip(pools, shares, strict=True):
        visual = sizes.visual(size)
        macs = (
            None
            if visual is None
            else methods.selection_macs(arm.method, visual, share, **arm.params)
        )
        if macs is None:
            return None
        total += macs
        if visual is not None and share < size:
            total += sum(sizes.relevance_macs(visual, encoder) for encoder in encoders)
    return total
