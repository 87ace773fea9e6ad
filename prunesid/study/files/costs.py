"""The table of what the arms of a benchmark cost, as `stages.costs` writes it."""

from pathlib import Path

import pandas as pd

COLUMNS = (
    "text_mean", "kv_mean", "encoder_macs", "selection_macs", "llm_macs", "total_macs",
)  # fmt: skip


def read_costs(path: Path) -> pd.DataFrame:
    """Its lines, by the arm's name."""
    table = pd.read_csv(path, dtype={"arm": str}, keep_default_na=False, na_values=[""])
    return table.set_index("arm")
