"""How many tokens each image gets where an arm's budget is dynamic (section 3.4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from prunesid.core.delayed import torch
from prunesid.core.files import atomic
from prunesid.methods.features.prunesid.information import dynamic_budgets
from prunesid.study.stages.information import num_tokens

# N_min: with K = N / 4, what one group needs.
MINIMUM = 4
COLUMNS = ("rule", "budget", "benchmark", "image_id", "tokens")

Budgets = Mapping[tuple[str, int], Mapping[str, int]]
"""{(rule, mean budget): {image id: tokens}} of one benchmark."""


def write_budgets(
    information: Path,
    wanted: Mapping[str, Sequence[tuple[str, int]]],
    calibration: str | None,
    output: Path,
) -> None:
    """Parquet with a line per rule, mean budget, benchmark and image: its N' in `tokens`.

    information  table of `write_information`
    wanted       {benchmark: its (rule, mean budget)}
    calibration  the benchmark whose images set the scale of the rule `calibrated`

    ValueError where no scale reaches a budget.
    """
    import pandas as pd  # here: planning the workflow imports this module, and pandas takes seconds

    table = pd.read_parquet(information)
    scores = {
        str(name): torch.from_numpy(own["phi"].to_numpy(copy=True))
        for name, own in table.groupby("benchmark")
    }
    lines = []
    for benchmark, pairs in wanted.items():
        images = table.loc[table["benchmark"] == benchmark, "image_id"]
        for rule, budget in pairs:
            held_out = scores[str(calibration)] if rule == "calibrated" else None
            try:
                tokens = dynamic_budgets(
                    scores[benchmark], budget, num_tokens=num_tokens(table, benchmark), rule=rule,
                    calibration=held_out, minimum=min(MINIMUM, budget),
                )  # fmt: skip
            except ValueError as error:
                raise ValueError(f"{benchmark}, {rule} budgets of {budget}: {error}") from error
            lines.append(pd.DataFrame({
                "rule": rule, "budget": budget, "benchmark": benchmark,
                "image_id": images, "tokens": tokens.numpy(),
            }))  # fmt: skip
    empty = pd.DataFrame({name: pd.Series(dtype="int64") for name in COLUMNS})
    empty = empty.astype({"rule": str, "benchmark": str, "image_id": str})
    with atomic(output) as temporary:
        pd.concat(lines or [empty], ignore_index=True).to_parquet(temporary, index=False)


def read_budgets(path: Path, benchmark: str) -> Budgets:
    """One benchmark's part of a table of `write_budgets`."""
    import pandas as pd

    table = pd.read_parquet(path)
    return {
        (rule, budget): dict(zip(own["image_id"], own["tokens"].astype(int), strict=True))
        for (rule, budget), own in table[table["benchmark"] == benchmark].groupby(
            ["rule", "budget"]
        )
    }
