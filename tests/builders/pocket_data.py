"""Tiny parquet files of the shape that the pocket benchmarks have."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Dataset, Image

from builders.tiny_llava import random_images

BENCHMARKS = ("pocket_pope", "pocket_gqa", "pocket_mme", "pocket_sqa")


def rows_of(benchmark: str, images: int = 4) -> list[dict[str, Any]]:
    """The questions: two per image, and for MME two per image and category."""
    rows: list[dict[str, Any]] = []

    def add(image: int, question: str, answer: str, category: str, **more: Any) -> None:
        rows.append(
            {
                "image_id": f"{benchmark}-{image}",
                "question_id": str(len(rows)),
                "question": question,
                "answer": answer,
                "category": category,
                **more,
            }
        )

    for image in range(images):
        if benchmark == "pocket_pope":
            add(image, "is there a red circle ?", "yes", "random")
            add(image, "is there a blue star ?", "no", "adversarial")
        elif benchmark == "pocket_gqa":
            add(image, "what color is the star ?", "red", "attribute")
            add(image, "how many circle ?", "3", "count")
        elif benchmark == "pocket_mme":
            for category in ("existence", "color"):
                add(
                    image,
                    f"is the {'star' if category == 'color' else 'square'} red ?",
                    "yes",
                    category,
                )
                add(image, "is there a blue circle ?", "no", category)
        else:
            choices = ["1", "2", "3", "4"]
            add(
                image,
                "how many bars are taller than 3 ?",
                "ABCD"[image % 4],
                "chart",
                choices=choices,
            )
            add(image, "which color is there ?", "B", "scene", choices=["red", "blue"])
    return rows


def write_benchmark(path: Path, benchmark: str, images: int = 4) -> Path:
    """Writes the parquet file, with the images in an HF Image column."""
    pictures = random_images(images, seed=1)
    rows = rows_of(benchmark, images)
    columns: dict[str, Any] = {name: [row[name] for row in rows] for name in rows[0]}
    columns["image"] = [pictures[int(row["image_id"].rpartition("-")[2])] for row in rows]
    path.parent.mkdir(parents=True, exist_ok=True)
    Dataset.from_dict(columns).cast_column("image", Image()).to_parquet(path)
    return path


def truncate_images(path: Path, names: Collection[str]) -> None:
    """Leave the first half of every stored image of these names, as a cut-off download would."""
    table = pq.read_table(path)
    rows = table.to_pylist()
    for row in rows:
        if row["image_id"] in names:
            content = row["image"]["bytes"]
            row["image"]["bytes"] = content[: len(content) // 2]
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), path)
