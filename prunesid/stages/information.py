"""Redundancy and information score of every image of a study."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from prunesid.files import atomic
from prunesid.information import redundancy, similarity
from prunesid.stages.features import read_features

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 16
_TOKENS = "num_tokens"


def write_information(features: Mapping[str, Path], output: Path) -> None:
    """Parquet with benchmark, image_id, rho (equation 4) and phi = 1 - rho (equation 7).

    `features` holds the file of each benchmark; `num_tokens` reads back how many tokens each has.
    """
    import pandas as pd

    tables, tokens = [], {}
    for benchmark, path in features.items():
        record, _ = read_features(path, layers=(), fields=())
        rho = torch.cat([redundancy(similarity(part)) for part in record.features.split(_CHUNK)])
        tokens[benchmark] = record.num_tokens
        tables.append(pd.DataFrame({
            "benchmark": benchmark, "image_id": list(record.image_ids or ()),
            "rho": rho.numpy(), "phi": (1 - rho).numpy(),
        }))  # fmt: skip
    table = pd.concat(tables, ignore_index=True)
    table.attrs[_TOKENS] = tokens
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)


def num_tokens(information: pd.DataFrame, benchmark: str) -> int:
    """T, the visual tokens of an image of the benchmark before compression."""
    return int(information.attrs[_TOKENS][benchmark])
