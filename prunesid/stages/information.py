"""Redundancy and information score of every image of a benchmark."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import torch

from prunesid.files import atomic
from prunesid.information import redundancy, similarity
from prunesid.stages.features import read_features

_CHUNK = 16


def write_information(features: Path, output: Path) -> None:
    """Parquet with image_id, rho (equation 4) and phi = 1 - rho (equation 7)."""
    record, _ = read_features(features)
    rho = torch.cat([redundancy(similarity(part)) for part in record.features.split(_CHUNK)])
    table = pd.DataFrame({
        "image_id": list(record.image_ids or ()), "rho": rho.numpy(), "phi": (1 - rho).numpy(),
    })  # fmt: skip
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)
