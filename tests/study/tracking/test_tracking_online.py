"""What goes to W&B besides runs: artifacts with their lineage, a workspace, a report."""

import dataclasses
import json
from pathlib import Path

import pytest
import yaml
from builders.published_runs import arm_run, comparison_run, snapshot
from builders.wandb_server import serve

from prunesid.study.config.study import load_study
from prunesid.study.tracking import Settings
from prunesid.study.tracking.artifacts import (
    Artifact,
    artifact_name,
    read_artifacts,
    send_artifacts,
    write_artifacts,
)
from prunesid.study.tracking.ledger import read_ledger
from prunesid.study.tracking.pages import NO_ACCOUNT, NotSent, main, send
from prunesid.study.tracking.publish import publish
from prunesid.study.tracking.uploads import read_uploads
from prunesid.study.tracking.wandb_commands import RETRIES

ONLINE = Settings("online", timeout=20)


@pytest.fixture
def account(monkeypatch):
    """Credentials, and no patience."""
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for name in RETRIES:
        monkeypatch.setitem(RETRIES, name, "1")


@pytest.fixture
def made(tmp_path) -> tuple[Artifact, ...]:
    for name in ("features", "answers", "table.md"):
        (tmp_path / name).write_text(f"the {name}")
    return (
        Artifact("features-m", "features", {"x.safetensors": tmp_path / "features"}, (), True),
        Artifact("answers-m", "answers", {"x.parquet": tmp_path / "answers"}, ("features-m",)),
        Artifact(
            "report-m", "report", {"grouping/table.md": tmp_path / "table.md"}, ("answers-m",)
        ),
    )


def test_names_that_wandb_allows():
    assert artifact_name("answers", "llava 1.5:7b") == "answers-llava-1.5-7b"


def test_the_list_of_artifacts_is_kept(made, tmp_path):
    runs = tmp_path / "runs"
    write_artifacts(made, runs)
    found = read_artifacts(runs)
    assert [(a.name, a.type, a.uses, a.by_reference) for a in found] == [
        (a.name, a.type, a.uses, a.by_reference) for a in made
    ]
    paths = [path.resolve() for a in found for path in a.files.values()]
    assert paths == [path for a in made for path in a.files.values()]
    before = snapshot(runs)
    write_artifacts(made, runs)
    assert snapshot(runs) == before
    assert read_artifacts(tmp_path) == []


def test_artifacts_go_up_once_with_their_lineage(made, tmp_path, monkeypatch, account):
    runs = tmp_path / "runs"
    write_artifacts(made, runs)
    with serve("answer") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        assert send_artifacts(runs, ONLINE) is None
        # Each by a run of its own, which used what it was made from.
        stages = [given["jobType"] for given in server.asked("UpsertBucket") if given["jobType"]]
        assert list(dict.fromkeys(stages)) == ["features", "answers", "report"]
        logged = {key: wanted["runName"] for key, wanted in server.artifacts.items()}
        assert len({key.rpartition("-")[0] for key in logged}) == 3
        used = [given["input"]["artifactID"] for given in server.asked("UseArtifact")]
        assert [key.rpartition("-")[0] for key in used] == ["A-features-m", "A-answers-m"]
        assert set(read_uploads(runs)) == {a.name for a in made}

        server.operations.clear()
        assert send_artifacts(runs, ONLINE) is None and server.operations == []
        (tmp_path / "table.md").write_text("another")
        assert send_artifacts(runs, ONLINE) is None
        stages = {given["jobType"] for given in server.asked("UpsertBucket") if given["jobType"]}
        assert stages == {"report"}


def test_a_server_that_fails_costs_the_artifacts_alone(made, tmp_path, monkeypatch, account):
    runs = tmp_path / "runs"
    write_artifacts(made, runs)
    with serve("error") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        problem = send_artifacts(runs, dataclasses.replace(ONLINE, timeout=5))
    assert problem
    assert read_uploads(runs) == {}
    assert read_artifacts(runs)


@pytest.fixture
def study(tmp_path) -> Path:
    path = tmp_path / "study.yaml"
    document = {
        "title": "Pruning",
        "benchmarks": ["pocket_pope"],
        "ablations": ["grouping"],
        "results": str(tmp_path / "results"),
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_without_an_account_it_says_so(study, made, tmp_path, capsys):
    assert main(["--config", str(study)]) == 1
    assert "There are no runs in" in capsys.readouterr().err
    directory = tmp_path / "results" / "pocket" / "runs"
    publish([arm_run()], directory, Settings("disabled"))
    assert main(["--config", str(study)]) == 1
    assert "Results are missing (grouping)" in capsys.readouterr().err
    write_artifacts(made, directory)
    assert main(["--config", str(study)]) == 1
    assert capsys.readouterr().err.strip() == NO_ACCOUNT
    (tmp_path / "answers").unlink()
    assert main(["--config", str(study)]) == 1
    assert "Results are missing (x.parquet)" in capsys.readouterr().err
    assert main(["--config", str(tmp_path / "stduy.yaml")]) == 1
    assert "Did you mean" in capsys.readouterr().err


@pytest.mark.slow
def test_runs_workspace_and_report(study, made, tmp_path, monkeypatch, account):
    directory = tmp_path / "results" / "pocket" / "runs"
    publish([arm_run(), comparison_run(tmp_path / "figures")], directory, Settings("offline"))
    write_artifacts(made, directory)
    with serve("answer") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        urls = send(load_study(study), directory, ONLINE)
        assert urls["workspace"].startswith(f"{server.url}/someone/prunesid?nw=")
        assert urls["report"].startswith(f"{server.url}/someone/prunesid/reports/Pruning--")
        statuses = {
            e.deliveries["wandb"].status for e in read_ledger(directory / "receipts.json").values()
        }
        assert statuses == {"online"}

        workspaces = [v for v in server.views.values() if v["type"] == "project-view"]
        assert {v["displayName"] for v in workspaces} == {"Pruning", "Token grouping"}
        assert urls["view pocket/grouping"].startswith(f"{server.url}/someone/prunesid?nw=")
        for workspace in workspaces:
            section = json.loads(workspace["spec"])["section"]
            names = [s["name"] for s in section["panelBankConfig"]["sections"]]
            assert names[:2] == ["What is kept", "Answers that differ"]
            assert "pocket_pope/value" in workspace["spec"] and '"predictions"' in workspace["spec"]
        (report,) = [v for v in server.views.values() if v["type"] == "runs"]
        assert "the table.md" in report["spec"] and "Token grouping" in report["spec"]

        server.operations.clear()
        assert send(load_study(study), directory, ONLINE) == urls
        assert server.asked("UpsertView2") == server.asked("upsertView") == []

        # Another table: the same pages, changed.
        (tmp_path / "table.md").write_text("another table")
        assert send(load_study(study), directory, ONLINE) == urls
        assert len(server.views) == 3
        assert "another table" in server.views[report["id"]]["spec"]

        # Someone has deleted them.
        server.views.clear()
        study.write_text(study.read_text().replace("Pruning", "Pruned"))
        assert send(load_study(study), directory, ONLINE) != urls
        assert {v["displayName"] for v in server.views.values()} == {"Pruned", "Token grouping"}


def test_a_server_that_fails_is_named(study, made, tmp_path, monkeypatch, account):
    directory = tmp_path / "results" / "pocket" / "runs"
    publish([arm_run()], directory, Settings("offline"))
    write_artifacts(made, directory)
    with serve("error") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        with pytest.raises(NotSent, match="1 of 1 runs were not uploaded"):
            send(load_study(study), directory, dataclasses.replace(ONLINE, timeout=5))
    (entry,) = read_ledger(directory / "receipts.json").values()
    assert entry.deliveries["wandb"].status == "failed" and entry.deliveries["wandb"].place


def test_runs_that_wandb_never_recorded(study, made, tmp_path, account):
    directory = tmp_path / "results" / "pocket" / "runs"
    publish([arm_run()], directory, Settings("disabled"))
    write_artifacts(made, directory)
    with pytest.raises(NotSent, match="No run is recorded for W&B's project prunesid"):
        send(load_study(study), directory, ONLINE)
