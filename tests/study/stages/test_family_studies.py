"""Real `snakemake` runs of a study of every family, tiny and random: from images and clips to
tables.

The numbers mean nothing, the plumbing is real. A job's imports take seconds, its work a fraction of
one: here jobs are forks of a Python that has imported it all (`warm_python`). `test_extending.py`
and `.ci/run` start their jobs as users do.
"""

from __future__ import annotations

import csv
from pathlib import Path

import pandas as pd
import pytest
import yaml
from builders.family_models import FAMILIES
from builders.synthetic_scores import ROOT
from builders.tiny_llava import save_tiny_llava
from builders.videos import write_clips
from builders.warm_python import WarmPython

STUDIES = {"llava": lambda folder, _: save_tiny_llava(folder), **FAMILIES}
# What enters unpruned, of an image and, where the family takes them, of a clip of six frames.
TOKENS = {
    "llava": {"pocket_mme": 16},
    "internvl": {"pocket_mme": 5 * 4, "msvd_qa": 6 * 4 + 5 * 3},
    "llava_next": {"pocket_mme": 5 * 16 + 8},
    "llava_onevision": {"pocket_mme": 5 * 16 + 8, "msvd_qa": 6 * 2 * 2 + 1},
    "mini_gemini": {"pocket_mme": 16},
    "qwen2_vl": {"pocket_mme": 5 * 5, "msvd_qa": 3 * 2 * 3},
    "qwen2_5_vl": {"pocket_mme": 5 * 5, "msvd_qa": 3 * 2 * 3},
    "qwen3_vl": {"pocket_mme": 5 * 5, "msvd_qa": 3 * 2 * 3},
    "video_llava": {"pocket_mme": 16, "msvd_qa": 6 * (1 + 16)},
}
BUDGET = 12
# Text between the frames of a clip that enters beside what is kept.
LABELS = {("internvl", "msvd_qa"): 5 * 3}
RESULTS = Path("results") / "tiny"
# On all benchmarks, and on images alone: frames of one color hold no information.
ABLATIONS = {
    "plumbing": {
        "vary": [
            {"method": "prunesid", "label": "PruneSID"},
            {"method": "cls_topk", "label": "attention"},
            {"method": "cdpruner", "label": "CDPruner"},
        ],
    },
    "sharing": {
        "vary": [
            {"method": "prunesid", "label": "PruneSID"},
            {"method": "prunesid", "dynamic": "benchmark", "label": "PruneSID-Dyn"},
        ],
        "benchmarks": ["pocket_mme"],
    },
}
TABLES = [RESULTS / "ablations" / name / "table.csv" for name in ABLATIONS]
PICTURES = [
    RESULTS / "ablations" / "plumbing" / "figure.svg",
    RESULTS / "figures" / "information.svg",
]


@pytest.fixture(scope="module")
def python(tmp_path_factory):
    with WarmPython(tmp_path_factory.mktemp("python")) as warm:
        yield warm


def study(folder: Path, family: str, words: Path) -> None:
    """A project of its own in `folder`: a tiny model, an ablation, and the study of both."""
    STUDIES[family](folder / "tiny", words)
    (folder / "ablations").mkdir()
    for name, fields in ABLATIONS.items():
        ablation = {
            "title": name,
            "description": "The numbers mean nothing.",
            "across": {"budget": [BUDGET]},
            "reference": {"method": "prunesid"},
            **fields,
        }
        (folder / "ablations" / f"{name}.yaml").write_text(yaml.safe_dump(ablation))
    settings = {
        "title": f"{family} in miniature",
        "model": "tiny",
        "benchmarks": list(TOKENS[family]),
        "ablations": list(ABLATIONS),
        "frames": 6,
        "limit": 2,
        "batch_size": 2,
        "bootstrap": {"resamples": 100},
    }
    (folder / "study.yaml").write_text(yaml.safe_dump(settings))


@pytest.mark.parametrize("family", STUDIES)
def test_a_study_of_every_family(family, python, tiny_llava, tmp_path):
    if "msvd_qa" in TOKENS[family]:
        write_clips(tmp_path / "data")
    study(tmp_path, family, tiny_llava)
    done = python.run(
        "-m", "snakemake", *map(str, (*TABLES, *PICTURES)), "--cores", "1",
        "-s", str(ROOT / "Snakefile"),
        "--configfile", "study.yaml", cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    for table, ablation in zip(TABLES, ABLATIONS.values(), strict=True):
        with (tmp_path / table).open() as stream:
            rows = {line["row"] for line in csv.DictReader(stream)}
        assert {setting["label"] for setting in ablation["vary"]} <= rows
    for picture in PICTURES:
        assert (tmp_path / picture).read_text().rstrip().endswith("</svg>")
    for benchmark, whole in TOKENS[family].items():
        scores = pd.read_parquet(tmp_path / RESULTS / benchmark / "scores.parquet")
        assert scores["image_id"].nunique() == 2
        tokens = scores.groupby("arm")["tokens"]
        assert tokens.unique()["vanilla"].tolist() == [whole]
        assert (tokens.mean().drop("vanilla") == BUDGET + LABELS.get((family, benchmark), 0)).all()
        assert len(tokens) == (5 if benchmark == "pocket_mme" else 4)
