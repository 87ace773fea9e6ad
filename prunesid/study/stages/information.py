"""Redundancy and information score of every image of a study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from prunesid.core.delayed import torch
from prunesid.core.files import atomic
from prunesid.core.memory import Halving
from prunesid.images.records import ImageRecords
from prunesid.methods.features.prunesid.information import redundancy, unit
from prunesid.study.files.features import read_features
from prunesid.study.stages.device import room

if TYPE_CHECKING:
    import pandas as pd

_CHUNK = 16
_TOKENS = "num_tokens"


def write_part(benchmark: str, features: Path, output: Path, device: str = "cpu") -> None:
    """Parquet with benchmark, image_id, rho (equation 4) and phi = 1 - rho (equation 7) of a part.

    An input in several crops has the means over them. The file also says how many tokens the
    largest input has, for `num_tokens`. The computation runs on `device`.
    """
    import pandas as pd

    records, _ = read_features(features, layers=(), fields=())
    with room(f"information of {features}", device):
        rho = _of_inputs(records, device)
    sizes = records.sizes
    tokens = [
        sum(sizes[row] for row in medium.rows)
        for media in records.inputs.values()
        for medium in media
    ]
    table = pd.DataFrame({
        "benchmark": pd.Series([benchmark] * len(rho), dtype=str),
        "image_id": pd.Series(records.names, dtype=str),
        "rho": rho.numpy(), "phi": (1 - rho).numpy(),
    })  # fmt: skip
    table.attrs[_TOKENS] = {benchmark: max(tokens, default=0)}
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)


def write_information(parts: Iterable[Path], output: Path) -> None:
    """One table of those of all parts of all benchmarks, in their order."""
    import pandas as pd

    tables, tokens = list(map(pd.read_parquet, parts)), dict[str, int]()
    for own in tables:
        for benchmark, largest in own.attrs[_TOKENS].items():
            tokens[benchmark] = max(largest, tokens.get(benchmark, 0))
    table = pd.concat(tables, ignore_index=True)
    table.attrs[_TOKENS] = tokens
    with atomic(output) as temporary:
        table.to_parquet(temporary, index=False)


def _of_inputs(records: ImageRecords, device: str) -> torch.Tensor:
    """(inputs,) mean redundancy of the crops of each, on the CPU."""
    if not records.inputs:
        return torch.zeros(0)
    halving, parts = Halving("images to find the information of"), list[torch.Tensor]()
    for record in records.groups:

        def measure(rows: Sequence[int], features: torch.Tensor = record.features) -> torch.Tensor:
            some = features[rows[0] : rows[-1] + 1]
            return redundancy(unit(some.to(device))).cpu()

        for start in range(0, len(record), _CHUNK):
            rows = range(start, min(start + _CHUNK, len(record)))
            parts += halving.run(rows, measure)
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
