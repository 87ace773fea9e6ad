"""The script that clocks models of published sizes, on one of them in small."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
from builders.small_models import small

from prunesid.study.config.hub_models import HubModel, hub_models

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "latency.py"


@pytest.fixture
def latency(monkeypatch):
    """Calls the script's `main`; every model that it knows is small."""
    spec = importlib.util.spec_from_file_location("latency_script", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    known = {name: HubModel(small(own.config)) for name, own in hub_models().items()}
    monkeypatch.setattr(module, "hub_models", lambda: known)

    def call(*given):
        monkeypatch.setattr(sys, "argv", ["latency.py", *given, "--device", "cpu"])
        module.main()

    return call


def test_every_arm_has_a_line_and_what_cannot_run_is_named(latency, tmp_path, capsys):
    latency(
        "--geometry", "llava-next-7b", "--budgets", "160", "--batches", "1", "2", "--requests", "2",
        "--dtype", "float32", "--methods", "grid", "prunesid:matched", "fastv",
        "--json", str(tmp_path / "times.json"),
    )  # fmt: skip
    said = capsys.readouterr()
    head, columns, _, *lines = said.out.strip().splitlines()
    assert head.startswith("llava-hf/llava-v1.6-vicuna-7b-hf, 3 layers, float32")
    rows = {line.split("|")[1].strip(): line.split("|")[2:-1] for line in lines}
    assert list(rows) == ["all tokens", "grid 160", "prunesid:matched 160"]
    assert all(len(row) == columns.count("|") - 2 for row in rows.values())
    # 2 x 2 tiles and the whole, with a newline after each of 48 rows.
    assert float(rows["all tokens"][0]) == 5 * 576 + 48
    assert float(rows["prunesid:matched 160"][0]) == 160
    # All tokens enter the first of the layers: no mean of 160 is left.
    assert "left out: fastv 160: " in said.err and "160" in said.err
    times = json.loads((tmp_path / "times.json").read_text())
    assert len(times) == 3 * (2 + 1)


def test_typos_are_met_with_the_choices(latency):
    with pytest.raises(SystemExit, match="llava-next-7b"):
        latency("--geometry", "llava-nex-7b")
    with pytest.raises(SystemExit, match="prunesid"):
        latency("--geometry", "llava-1.5-7b", "--methods", "prunsid")
