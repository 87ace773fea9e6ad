"""Made-up runs, a place to publish them that no setting of the user's reaches, readers."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from prunesid.study.tracking import PICTURE, Histogram, Picture, Run


def arm_run(name: str = "default", **changes) -> Run:
    predictions = pd.DataFrame(
        {"question": ["Is there a cat?", "How many?"], "answer": ["yes", "2"], "score": [1, np.nan]}
    )
    run = Run(
        name=name,
        group="grouping",
        job_type="score",
        tags=("pocket", "budget 64", "psca"),
        config={"arm": {"method": "prunesid", "budget": np.int64(64), "lam": None}, "seed": 0},
        summary={
            "pocket_pope/value": np.float64(81.25),
            "pocket_pope/ci_low": 79.5,
            "spread": np.nan,
        },
        predictions=predictions,
        environment={"commit": "abc", "versions": {"torch": "2.13.0"}},
    )
    return dataclasses.replace(run, **changes)


def pictured_run(folder: Path, name: str = "pictured") -> Run:
    """An arm with two pictures, the second beside its first prediction, and a histogram."""
    folder.mkdir(exist_ok=True)
    pictures = []
    for place, color in enumerate(("red", "blue")):
        path = folder / f"{color}.png"
        Image.new("RGB", (16 + place, 8), color).save(path)
        pictures.append(Picture(path, f"{color}: left and right"))
    run = arm_run(name, pictures=tuple(pictures))
    predictions = run.predictions.assign(**{PICTURE: pd.array([1, None], dtype="Int64")})
    histograms = {"pocket_pope/tokens_per_image": Histogram((1, 0, 3), (10.0, 20.0, 30.0, 40.0))}
    return dataclasses.replace(run, predictions=predictions, histograms=histograms)


def comparison_run(folder: Path) -> Run:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (30, 20), (200, 30, 30)).save(folder / "figure.png")
    (folder / "table.csv").write_text("row,value\npsca,81.25\nrandom,70\n")
    (folder / "table.html").write_text("<table><tr><td>81.25</td></tr></table>")
    files = {"figure": "figure.png", "table": "table.csv", "page": "table.html"}
    return Run(
        "grouping", "grouping", "compare", files={k: folder / name for k, name in files.items()}
    )


def snapshot(folder: Path) -> dict[str, tuple[int, bytes]]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(p.relative_to(folder)): (p.stat().st_mtime_ns, p.read_bytes()) for p in files}


def inspect(place: Path, *options: str) -> str:
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(place)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def read_back(place: Path) -> dict:
    """A recorded W&B run, whole: name, tags, config, summary, state."""
    return json.loads(inspect(place, "--summary"))


def numbers(summary: dict) -> dict:
    """The metrics of a recorded summary, without W&B's own and without media."""
    return {
        key: value
        for key, value in summary.items()
        if not key.startswith("_") and not isinstance(value, dict)
    }
