"""What edits and damage make stale: real `snakemake` runs of a tiny study in a copy."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT
from builders.warm_python import WarmPython
from safetensors import safe_open

from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_keys

RESULTS = Path("results")
PART = RESULTS / "pocket" / "pocket_mme" / "1-of-1"
SCORES = RESULTS / "pocket" / "pocket_mme" / "scores.parquet"
TABLE = RESULTS / "pocket" / "ablations" / "few" / "table.html"
STUDY = {
    "title": "Tiny",
    "benchmarks": ["pocket_mme"],
    "ablations": ["few"],
    "limit": 2,
    "device": "cpu",
    "patches": {"images": 1},
    "bootstrap": {"resamples": 100},
}
ABLATION = "title: Few\nvary: [{method: prunesid}, {method: grid}, {method: tome}]\n"
TURNED = """
def _turned(records):
    from dataclasses import replace

    turned = (replace(group, features=group.features.flip(1)) for group in records.groups)
    return replace(records, groups=tuple(turned))


"""
COMPUTED = ("images", "features", "encode", "select", "answer", "score")


class Project:
    """A copy of the project; `source` is its library, used as it stands when a run begins."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.source = folder / "project", folder / "project" / "prunesid"
        self._monkeypatch, self._runs = monkeypatch, folder / "runs"
        # A copy would be newer than what is computed, so it keeps the age of the original.
        for name in ("prunesid", "workflow", "configs", "notebooks"):
            shutil.copytree(ROOT / name, self.folder / name, ignore=lambda *_: {"__pycache__"})
        shutil.copy2(ROOT / "Snakefile", self.folder)
        (self.folder / "ablations").mkdir()
        (self.folder / "ablations" / "few.yaml").write_text(ABLATION)
        (self.folder / "study.yaml").write_text(yaml.safe_dump(STUDY))

    def edit(self, path: str, old: str, new: str) -> None:
        file = self.source / path
        assert file.read_text().count(old) == 1
        file.write_text(file.read_text().replace(old, new))

    def run(self, target: Path = SCORES) -> tuple[str, str, str]:
        """(what is stale by the estimate, what Snakemake plans, how the run for `target` ends)."""
        self._runs.mkdir(exist_ok=True)
        folder = self._runs / str(len(list(self._runs.iterdir())))
        folder.mkdir()
        self._monkeypatch.setenv("PYTHONPATH", str(self.folder))
        with WarmPython(folder) as python:
            usual = ("--cores", "1", "--configfile", "study.yaml")
            done = [
                python.run(*arguments, cwd=self.folder)
                for arguments in (
                    ("-m", "prunesid", "estimate", "study.yaml"),
                    ("-m", "snakemake", "--dry-run", *usual),
                    ("-m", "snakemake", str(target), *usual),
                )
            ]
        for each in done:
            assert each.returncode == 0, each.stdout + each.stderr
        return done[0].stdout, done[1].stdout + done[1].stderr, done[2].stdout + done[2].stderr

    def selections(self) -> dict[str, list[list[int]]]:
        """{arm: index of what it keeps}."""
        store, found = Store(self.folder / RESULTS / "store"), {}
        for arm, key in read_keys(self.folder / PART / "selections.json").items():
            with safe_open(store.get(key), "np") as file:
                found[arm] = file.get_tensor("index").tolist()
        return found


def left(estimate: str) -> set[str]:
    """The stages of which something is to be done, as the estimate says."""
    counts = re.findall(r"^(\w+) +(\d+) of (\d+) ", estimate, re.MULTILINE)
    return {stage for stage, done, of in counts if done != of and stage in COMPUTED}


def planned(dry_run: str) -> set[str]:
    """The stages that would run, as Snakemake says."""
    return set(re.findall(r"^(\w+) +\d+$", dry_run, re.MULTILINE)) & set(COMPUTED)


@pytest.fixture
def project(tmp_path, monkeypatch):
    return Project(tmp_path, monkeypatch)


@pytest.mark.slow
def test_an_edit_changes_what_depends_on_it_and_damage_is_mended(project):
    estimate, plan, _ = project.run(TABLE)
    assert left(estimate) == planned(plan) == set(COMPUTED)
    first = project.selections()
    scores = (project.folder / SCORES).read_bytes()

    drawn = (project.folder / TABLE).stat().st_mtime_ns
    project.edit("study/report/theme.py", "One look for every", "One and the same look for every")
    estimate, plan, _ = project.run(TABLE)
    assert left(estimate) == planned(plan) == set()
    assert "ablation_few" in plan and (project.folder / TABLE).stat().st_mtime_ns > drawn

    compress = "budgets = _budgets(budget, record)", "budgets = _budgets(budget, record) - 8"
    project.edit("methods/features/__init__.py", *compress)
    estimate, plan, _ = project.run()
    assert left(estimate) == planned(plan) == {"select", "answer", "score"}
    shorter = project.selections()
    for arm, kept in first.items():
        lost = 0 if "tome" in arm else 8
        assert [len(row) for row in shorter[arm]] == [len(row) - lost for row in kept]

    project.edit("methods/features/__init__.py", *reversed(compress))
    encoded = "adapter.encode(inputs, needs, owners)"
    project.edit("study/stages/features.py", encoded, f"_turned({encoded})")
    project.edit("study/stages/features.py", "def _encoded(", TURNED + "def _encoded(")
    estimate, plan, _ = project.run()
    assert left(estimate) == planned(plan) == {"features", "encode", "select", "answer", "score"}
    turned = project.selections()
    assert turned.keys() == first.keys() and turned["default"] != first["default"]
    assert turned["method-grid"] == first["method-grid"]
    assert (project.folder / SCORES).read_bytes() != scores

    def tables() -> dict[str, bytes]:
        paths = (*(project.folder / PART).glob("*.json"), project.folder / SCORES)
        return {path.name: path.read_bytes() for path in paths}

    before, store = tables(), Store(project.folder / RESULTS / "store")
    assert {"encoded.json", "selections.json", "answers.json"} < set(before)
    for name in ("encoded.json", "selections.json", "answers.json"):
        # `selections.json` names what was encoded, too.
        whole = (key for key in read_keys(project.folder / PART / name).values() if key in store)
        payload = store.get(min(whole))
        content = payload.read_bytes()
        payload.write_bytes(content[:-1] + bytes([content[-1] ^ 255]))
    project.edit("study/stages/scores.py", "scores of all arms", "scores of every arm")
    estimate, plan, _ = project.run()
    assert left(estimate) == planned(plan) == {"encode", "select", "answer", "score"}
    assert "answers.json named damaged entries of the store" in plan
    assert tables() == before

    # A run that was killed before it made a dropped table again leaves scores that need no new one.
    (project.folder / PART / "selections.json").unlink()
    _, plan, _ = project.run()
    assert "select" in planned(plan)
