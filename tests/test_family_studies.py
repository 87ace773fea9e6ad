"""Real `snakemake` runs of studies on tiny random models: from images and clips to tables and figures.

Every job pays seconds for its imports, so there is one study for each way through the workflow that
Pocket-LLaVA's own studies do not take: images in crops of several sizes, and clips, whose tokens have
rotary positions of their own. `test_families.py` takes every family through the same stages, without
Snakemake.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
import yaml
from family_models import FAMILIES
from synthetic_scores import ROOT
from videos import write_clips

BUDGET = 12
STATIC = (
    {"method": "prunesid", "label": "PruneSID"},
    {"method": "cls_topk", "label": "attention"},
)
RESULTS = Path("results") / "tiny"
TABLE = RESULTS / "ablations" / "plumbing" / "table.csv"
FIGURE = RESULTS / "ablations" / "plumbing" / "figure.svg"


def study(
    folder: Path, family: str, words: Path, benchmark: str, vary: Sequence[dict] = STATIC
) -> None:
    """A project of its own in `folder`: a tiny model, an ablation, and the study of both."""
    FAMILIES[family](folder / "tiny", words)
    ablation = {
        "title": "Plumbing",
        "description": "The numbers mean nothing.",
        "vary": list(vary),
        "across": {"budget": [BUDGET]},
        "reference": {"method": "prunesid"},
    }
    settings = {
        "title": f"{family} in miniature",
        "model": "tiny",
        "benchmarks": [benchmark],
        "ablations": ["plumbing"],
        "limit": 2,
        "batch_size": 2,
        "bootstrap": {"resamples": 100},
    }
    (folder / "ablations").mkdir()
    (folder / "ablations" / "plumbing.yaml").write_text(yaml.safe_dump(ablation))
    (folder / "study.yaml").write_text(yaml.safe_dump(settings))


def run(folder: Path, benchmark: str, *targets: Path) -> pd.DataFrame:
    """Has snakemake make the targets -> the scores that they come from."""
    done = subprocess.run(
        [sys.executable, "-m", "snakemake", *map(str, targets), "--cores", "1",
         "-s", str(ROOT / "Snakefile"), "--configfile", "study.yaml"],
        cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return pd.read_parquet(folder / RESULTS / benchmark / "scores.parquet")


def rows_of(folder: Path) -> set[str]:
    with (folder / TABLE).open() as stream:
        return {line["row"] for line in csv.DictReader(stream)}


def tokens_of(scores: pd.DataFrame) -> dict[str, list[int]]:
    return {str(arm): sorted(set(own["tokens"])) for arm, own in scores.groupby("arm")}


def test_images_in_crops(tiny_llava, tmp_path):
    dynamic = {"method": "prunesid", "dynamic": "benchmark", "label": "PruneSID-Dyn"}
    study(tmp_path, "llava_next", tiny_llava, "pocket_mme", [*STATIC, dynamic])
    scores = run(tmp_path, "pocket_mme", TABLE)
    assert {"PruneSID", "attention", "PruneSID-Dyn"} <= rows_of(tmp_path)
    assert scores["image_id"].nunique() == 2
    found = tokens_of(scores)
    shared = found.pop(f"budget-{BUDGET}_dynamic-benchmark")
    assert found == {
        "vanilla": [5 * 16 + 8],
        f"budget-{BUDGET}": [BUDGET],
        f"method-cls-topk_budget-{BUDGET}": [BUDGET],
    }
    # One image gets what the other does without.
    assert len(shared) == 2


def test_clips_with_rotary_positions(tiny_llava, tmp_path):
    write_clips(tmp_path / "data")
    study(tmp_path, "qwen2_vl", tiny_llava, "msvd_qa")
    scores = run(tmp_path, "msvd_qa", TABLE, FIGURE)
    assert {"PruneSID", "attention"} <= rows_of(tmp_path)
    assert (tmp_path / FIGURE).read_text().rstrip().endswith("</svg>")
    assert scores["image_id"].nunique() == 2
    found = tokens_of(scores)
    (whole,) = found.pop("vanilla")
    assert whole > BUDGET
    assert found == {
        f"budget-{BUDGET}": [BUDGET],
        f"method-cls-topk_budget-{BUDGET}": [BUDGET],
    }
