"""Redundancy and information score of every image of a study."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunesid.core.files import atomic
from prunesid.images.records import ImageRecords
from prunesid.methods.features.prunesid.information import redundancy, similarity
from prunesid.study.files.features import read_features

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 16
_TOKENS = "num_tokens"


def write_information(features: Mapping[str, Sequence[Path]], output: Path) -> None:
    """Parquet with benchmark, image_id, rho (equation 4) and phi = 1 - rho (equation 7).

    `features` holds the files of each benchmark's shards; `num_tokens` reads back how many tokens
    each has. An input in several crops has the means over them.
    """
    import pandas as pd

    tables, tokens = [], dict[str, int]()
    for benchmark, path in ((name, path) for name, paths in features.items() for path in paths):
        records, _ = read_features(path, layers=(), fields=())
        if not records.inputs:
            continue
        rho, sizes = _of_inputs(records), records.sizes
        largest = max(
            sum(sizes[row] for row in medium.rows)
            for media in records.inputs.values()
            for medium in media
        )
        tokens[benchmark] = max(largest, tokens.get(benchmark, 0))
        tables.append(pd.DataFrame({
            "benchmark": benchmark, "image_id": list(records.names),
            "rho": rho.numpy(), "phi": (1 - rho).numpy(),
        }))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    table.attrs[_TOKENS] = tokens
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)


def _of_inputs(records: ImageRecords) -> torch.Tensor:
    """(inputs,) mean redundancy of the crops of each."""
    parts = [
        torch.cat([redundancy(similarity(part)) for part in record.features.split(_CHUNK)])
        for record in records.groups
    ]
    order = torch.tensor([row for rows in records.members for row in rows]).argsort()
    rho = torch.cat(parts)[order]
    return torch.stack(
        [
            rho[[row for medium in media for row in medium.rows]].mean()
            for media in records.inputs.values()
        ]
    )


def num_tokens(information: pd.DataFrame, benchmark: str) -> int:
    """T, the visual tokens of the benchmark's largest image or clip before compression."""
    return int(information.attrs[_TOKENS][benchmark])
