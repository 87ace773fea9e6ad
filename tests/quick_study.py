"""What the quick study's arms keep, answer and score, against what is recorded of it.

    make reproduce CONFIG=configs/quick.yaml
    python tests/quick_study.py           # names the arms that differ, and in what
    python tests/quick_study.py --record  # what they do from now on

`quick_study.json` holds digests of the numbers and texts, not of files, whose bytes
depend on versions and times too.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping
from itertools import chain
from pathlib import Path

import pandas as pd
from safetensors import safe_open

from prunesid.core.files import atomic, digest
from prunesid.core.questions import read_answers
from prunesid.study.config.study import Study, load_study
from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_shards
from prunesid.study.stages.shard import shards

ROOT = Path(__file__).parents[1]
STUDY = ROOT / "configs" / "quick.yaml"
RECORDED = ROOT / "tests" / "quick_study.json"
# {benchmark: {arm: {indices, answers or scores: digest}}}
Digests = Mapping[str, Mapping[str, Mapping[str, str]]]


def digests(study: Study) -> Digests:
    """Of every arm of a study that has been run; `indices` of those that keep some."""
    layout = Layout.of(study)
    store = Store(layout.store)
    found = {}
    for benchmark in study.benchmarks:
        name = benchmark.name
        selections, answers = (
            read_shards([layout.keys(stage, name, shard) for shard in shards(study.shards)])
            for stage in ("selections", "answers")
        )
        scores = pd.read_parquet(layout.scores(name)).set_index("arm")
        found[name] = {
            arm: {
                "answers": digest(list(chain(*(_answers(store.get(key)) for key in keys)))),
                "scores": digest(scores.loc[[arm], ["question_id", "score"]].to_numpy().tolist()),
            }
            for arm, keys in answers.items()
        }
        for arm, keys in selections.items():
            kept = chain(*(_indices(store.get(key)) for key in keys))
            found[name][arm]["indices"] = digest(list(kept))
    return found


def _indices(path: Path) -> Iterator[list[int]]:
    """The index of what is kept of each image, in the order in which it enters."""
    with safe_open(path, "np") as file:
        index, count = file.get_tensor("index"), file.get_tensor("count")
    return (row[:number].tolist() for row, number in zip(index, count, strict=True))


def _answers(path: Path) -> list[list[str]]:
    return [[answer.question_id, answer.answer] for answer in read_answers(path)]


def differences(recorded: Digests, found: Digests) -> list[str]:
    """A line for everything that is not as recorded: 'pocket_gqa, default: other indices'."""
    lines = []
    before, now = (
        {(name, arm): own for name, arms in each.items() for arm, own in arms.items()}
        for each in (recorded, found)
    )
    for place in dict.fromkeys((*before, *now)):
        old, new = before.get(place), now.get(place)
        if old is None or new is None:
            said = "not recorded" if old is None else "recorded, but not in the study"
        else:
            fields = sorted({*old, *new})
            said = ", ".join(f"other {name}" for name in fields if old.get(name) != new.get(name))
        if said:
            lines.append(f"{', '.join(place)}: {said}")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="The quick study against what is recorded of it.")
    parser.add_argument("--record", action="store_true", help="record what is there")
    asked = parser.parse_args()
    found = digests(load_study(STUDY))
    if asked.record:
        with atomic(RECORDED) as part:
            part.write_text(json.dumps(found, indent=1, sort_keys=True) + "\n")
        return
    lines = differences(json.loads(RECORDED.read_text()), found)
    if lines:
        sys.exit("\n".join((f"The quick study is not as {RECORDED} has it:", *lines)))


if __name__ == "__main__":
    main()
