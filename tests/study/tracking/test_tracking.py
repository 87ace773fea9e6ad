"""Runs as published are runs as read back, and W&B may fail without touching anything else."""

import dataclasses
import json
import logging
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from builders.published_runs import (
    arm_run,
    comparison_run,
    inspect,
    numbers,
    pictured_run,
    read_back,
    snapshot,
)
from builders.wandb_server import serve
from PIL import Image

from prunesid.study.tracking import Delivery, Histogram, Picture, Settings, plain
from prunesid.study.tracking.environment import commit_of, environment
from prunesid.study.tracking.ledger import read_ledger
from prunesid.study.tracking.process import run_bounded
from prunesid.study.tracking.publish import deliver, publish
from prunesid.study.tracking.wandb import Wandb
from prunesid.study.tracking.wandb_commands import RETRIES, upload

OFFLINE = Settings(mode="offline")


def test_a_run_is_named_by_its_content(tmp_path):
    run = arm_run()
    assert run.id == arm_run().id == run.content[:16]
    assert arm_run(environment={"commit": "other"}).id == run.id
    shuffled = dict(reversed(run.config.items()))
    assert arm_run(config=shuffled).id == run.id
    changes = [{"name": "x"}, {"summary": {}}, {"predictions": None}, {"tags": ()}, {"config": {}}]
    assert len({run.id, *(arm_run(**change).id for change in changes)}) == 1 + len(changes)
    pictured = comparison_run(tmp_path)
    former = pictured.id
    (tmp_path / "table.csv").write_text("row,value\n")
    assert comparison_run(tmp_path).id == former
    (tmp_path / "table.csv").write_text("row,value\n")
    assert dataclasses.replace(pictured).id != former


def test_plain_values():
    given = {"a": np.float32(0.5), 1: (np.nan, float("inf"), pd.NA), "p": Path("x/y"), "s": {2, 1}}
    assert plain(given) == {"a": 0.5, "1": [None, None, None], "p": "x/y", "s": [1, 2]}
    assert plain([np.array([1, 2]), np.bool_(True), OFFLINE])[:2] == [[1, 2], True]
    with pytest.raises(TypeError, match="no JSON for object"):
        plain(object())


def test_histograms_count_every_value():
    histogram = Histogram.of([3, 3, 4, 7], bins=4)
    assert histogram == Histogram((2, 1, 0, 1), (3.0, 4.0, 5.0, 6.0, 7.0))
    assert sum(Histogram.of([5.0] * 9).counts) == 9
    assert sum(Histogram.of([128.0, 128.0 + 3e-14]).counts) == 2


def test_wrong_input_names_the_choices(tmp_path):
    with pytest.raises(ValueError, match="Did you mean 'offline'"):
        Settings(mode="ofline")
    with pytest.raises(ValueError, match="positive"):
        Settings(timeout=0)
    with pytest.raises(ValueError, match="Unknown file type '.pdf'"):
        arm_run(files={"figure": Path("figure.pdf")})
    with pytest.raises(ValueError, match="Unknown file type '.svg'"):
        arm_run(pictures=(Picture(Path("kept.svg"), ""),))
    with pytest.raises(ValueError, match="1001 predictions"):
        arm_run(predictions=pd.DataFrame({"x": range(1001)}))
    with pytest.raises(ValueError, match="two runs are named grouping/default"):
        publish([arm_run(), arm_run(summary={})], tmp_path, OFFLINE)
    (tmp_path / "receipts.json").write_text("[]")
    with pytest.raises(ValueError, match="delete it to publish all runs again"):
        publish([arm_run()], tmp_path, OFFLINE)


def test_offline_runs_read_back_as_published(tmp_path, sheltered):
    home, here = sheltered
    directory = here / "runs"
    runs = [
        arm_run(),
        arm_run("budget-128", predictions=None),
        comparison_run(tmp_path / "figures"),
        pictured_run(tmp_path / "pictures"),
    ]
    # auto, and no account is known: offline.
    publication = publish(runs, directory, Settings(project="pruning"))
    assert [e.deliveries["wandb"].status for e in publication.entries] == ["offline"] * 4
    assert not publication.failures

    for run, entry in zip(runs, publication.entries, strict=True):
        assert (entry.id, entry.content) == (run.id, run.content)
        written = json.loads((directory / entry.deliveries["json"].place).read_text())
        assert written["summary"] == plain(run.summary) and written["id"] == run.id

    run, place = runs[0], directory / publication.entries[0].deliveries["wandb"].place
    read = read_back(place)
    assert (read["run_id"], read["name"], read["project"]) == (run.id, "default", "pruning")
    assert (read["state"], read["exit_code"]) == ("finished", 0)
    assert set(read["tags"]) == set(run.tags)
    assert read["config"] == plain(run.config) | {"environment": run.environment}
    # wandb has no word for an undefined number and leaves it out.
    assert numbers(read["summary"]) == {
        k: v for k, v in plain(run.summary).items() if v is not None
    }
    stored = json.loads((place / "files" / read["summary"]["predictions"]["path"]).read_text())
    assert stored["columns"] == ["question", "answer", "score"]
    assert stored["data"] == [["Is there a cat?", "yes", 1.0], ["How many?", "2", None]]
    records = [json.loads(line) for line in inspect(place).splitlines()]
    (described,) = [r["run"] for r in records if r["type"] == "run"]
    assert (described["run_group"], described["job_type"]) == ("grouping", "score")

    place = directory / publication.entries[2].deliveries["wandb"].place
    summary = read_back(place)["summary"]
    figure = Image.open(place / "files" / summary["figure"]["path"])
    assert figure.size == (30, 20) and figure.getpixel((0, 0)) == (200, 30, 30)
    stored = json.loads((place / "files" / summary["table"]["path"]).read_text())
    assert stored["data"] == [["psca", "81.25"], ["random", "70"]]
    assert "81.25" in (place / "files" / summary["page"]["path"]).read_text()

    place = directory / publication.entries[3].deliveries["wandb"].place
    summary = read_back(place)["summary"]
    shown = summary["pictures"]
    assert (shown["count"], shown["captions"]) == (
        2,
        ["red: left and right", "blue: left and right"],
    )
    sizes = [Image.open(place / "files" / name).size for name in shown["filenames"]]
    assert sizes == [(16, 8), (17, 8)]
    histogram = summary["pocket_pope/tokens_per_image"]
    assert (histogram["values"], histogram["bins"]) == ([1, 0, 3], [10, 20, 30, 40])
    # Beside a run its tables hold words for pictures; the pictures wait with the table's artifact.
    cells, kind = waiting_pictures(directory)
    assert (cells[0]["_type"], cells[0]["width"], cells[1]) == ("image-file", 17, None)
    assert "image-file" in json.dumps(kind)

    before, first = snapshot(here), publication
    again = publish(runs, directory, Settings(mode="offline", project="pruning"))
    assert snapshot(here) == before and again == first
    publication.write(tmp_path / "published.json")
    assert read_ledger(tmp_path / "published.json") == read_ledger(directory / "receipts.json")

    message = publication.message(here / "report.html").splitlines()
    assert message[0] == "Report: report.html"
    assert message[-1].endswith("wandb sync runs/wandb")
    assert list(home.iterdir()) == [] and list(here.iterdir()) == [directory]


def waiting_pictures(directory: Path) -> tuple[list, dict]:
    """The column of pictures of the only table that has one, and its type."""
    for path in (directory / "wandb-data" / "artifacts" / "staging").iterdir():
        if path.read_bytes().startswith(b'{"_type": "table"'):
            table = json.loads(path.read_text())
            if "picture" in table["columns"]:
                at = table["columns"].index("picture")
                kind = table["column_types"]["params"]["type_map"]["picture"]
                return [row[at] for row in table["data"]], kind
    raise AssertionError("no table has pictures")


def test_new_results_take_the_place_of_old_ones(tmp_path):
    publish([arm_run(), arm_run("other")], tmp_path, OFFLINE)
    changed, other = arm_run(summary={"pocket_pope/value": 82.0}), arm_run("other")
    # What a call that was killed before it wrote its receipts has left.
    (tmp_path / "wandb" / f"offline-run-20260101_000000-{changed.id}").mkdir()
    publish([changed, other], tmp_path, OFFLINE)
    folders = sorted(p.name.rpartition("-")[2] for p in (tmp_path / "wandb").iterdir())
    assert folders == sorted([changed.id, other.id])
    assert sorted(read_ledger(tmp_path / "receipts.json")) == folders
    written = (tmp_path / "json" / "grouping").iterdir()
    assert {json.loads(path.read_text())["id"] for path in written} == {changed.id, other.id}


def test_disabled_and_unbearable_back_ends(tmp_path, caplog):
    publication = publish([arm_run()], tmp_path, Settings(mode="disabled"))
    assert set(publication.entries[0].deliveries) == {"json"} and not (tmp_path / "wandb").exists()

    class Broken:
        name = "broken"

        def publish(self, runs, directory, known):
            raise RuntimeError("no such luck")

        def describe(self, deliveries, directory):
            return [d.reason for d in deliveries]

    class Always(Broken):
        name = "always"

        def publish(self, runs, directory, known):
            return {run.id: Delivery("written") for run in runs}

    publication = deliver([arm_run()], tmp_path, [Always(), Broken()])
    assert publication.failures == {"broken": "RuntimeError: no such luck"}
    assert "broken failed for 1 of 1 runs: RuntimeError: no such luck" in caplog.text


def test_wandb_that_cannot_be_imported(tmp_path, monkeypatch, caplog):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "wandb.py").write_text(
        "raise ModuleNotFoundError('No module named wandb')"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"))
    with caplog.at_level(logging.WARNING):
        publication = publish([arm_run(), arm_run("other")], tmp_path / "runs", Settings())
    reason = "ModuleNotFoundError: No module named wandb"
    assert publication.failures == {"wandb": reason}
    assert f"wandb failed for 2 of 2 runs: {reason}" in caplog.text
    assert "No result is lost" in publication.message()
    held = json.loads((tmp_path / "runs" / "receipts.json").read_text())["runs"][arm_run().id]
    assert (held["wandb"]["status"], held["wandb"]["reason"]) == ("failed", reason)
    assert held["json"]["status"] == "written"
    assert len(list((tmp_path / "runs" / "json").rglob("*.json"))) == 2


def test_servers_that_fail_and_one_that_answers(tmp_path, sheltered, monkeypatch, caplog):
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    for name in RETRIES:
        monkeypatch.setitem(RETRIES, name, "1")
    runs = [arm_run(), arm_run("other")]
    with serve("hang") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        publish(runs, tmp_path / "runs", OFFLINE)
        assert server.requests == []
        recorded = snapshot(tmp_path / "runs" / "json")

        # Less than what the client itself waits for an answer.
        begun = time.monotonic()
        publication = publish(runs, tmp_path / "runs", Settings(mode="online", timeout=2))
        assert time.monotonic() - begun < 30
    assert publication.failures == {"wandb": "the upload did not finish within 2 s"}
    assert "wandb failed for 2 of 2 runs" in caplog.text
    assert publication.message().endswith("sync " + str(tmp_path / "runs" / "wandb"))

    asked = []

    def spy(places, *of):
        asked.append(len(places))
        return upload(places, *of)

    with serve("error") as server, monkeypatch.context() as patched:
        patched.setattr("prunesid.study.tracking.wandb.upload", spy)
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        # auto, and an account is known: online.
        publication = publish(runs, tmp_path / "runs", Settings(timeout=60))
        assert server.requests
    # One failure is enough.
    assert asked == [1]
    assert (
        "HTTP 500" in publication.failures["wandb"] or "giving up" in publication.failures["wandb"]
    )
    assert all(e.deliveries["wandb"].place for e in publication.entries)

    with serve("answer") as server:
        monkeypatch.setenv("WANDB_BASE_URL", server.url)
        publication = publish(runs, tmp_path / "runs", Settings(mode="online"))
        assert not publication.failures
        urls = [e.deliveries["wandb"].url for e in publication.entries]
        assert urls == [f"{server.url}/someone/prunesid/runs/{run.id}" for run in runs]
        assert publication.message().endswith(f"{server.url}/someone/prunesid")
        uploads = [path for path in server.requests if path.startswith("/upload/media/table")]
        assert len(uploads) == 2
        count = len(server.requests)
        assert publish(runs, tmp_path / "runs", Settings()) == publication
        assert len(server.requests) == count

    assert snapshot(tmp_path / "runs" / "json") == recorded
    assert len(list((tmp_path / "runs" / "wandb").glob("offline-run-*"))) == 2
    home, here = sheltered
    assert list(home.iterdir()) == list(here.iterdir()) == []


def test_wandb_mode_is_heeded_where_nothing_is_asked(monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "disabled")
    assert Wandb(Settings()).mode() == "disabled"
    assert Wandb(Settings(mode="online")).mode() == "online"
    monkeypatch.setenv("WANDB_MODE", "shared")
    assert Wandb(Settings()).mode() == "auto"


def test_a_program_ends_with_its_children(tmp_path):
    script = (
        "import subprocess, time; "
        "print(subprocess.Popen(['sleep', '60']).pid, flush=True); time.sleep(60)"
    )
    begun = time.monotonic()
    done = run_bounded(
        [sys.executable, "-c", script], stdin="", environment={}, directory=tmp_path, timeout=3
    )
    assert time.monotonic() - begun < 30 and done.code is None
    # A killed process is gone only once the kernel has come round to it.
    for _ in range(100):
        if not _alive(int(done.stdout)):
            break
        time.sleep(0.1)
    assert not _alive(int(done.stdout))


def _alive(process: int) -> bool:
    try:
        state = Path(f"/proc/{process}/stat").read_text().split()[2]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def test_environment(tmp_path):
    found = environment("cpu")
    assert found["versions"]["python"] == sys.version.split()[0]
    assert found["versions"]["torch"].startswith("2.") and found["versions"]["prunesid"]
    assert found["device"] and found["threads"] >= 1
    json.dumps(found)

    assert commit_of(tmp_path) == (None, None)
    (tmp_path / "__init__.py").write_text("")
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for command in (["init", "-q"], ["add", "__init__.py"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *command], check=True)
    commit, dirty = commit_of(tmp_path)
    assert commit is not None and len(commit) == 40 and dirty is False
    (tmp_path / "__init__.py").write_text("x = 1\n")
    assert commit_of(tmp_path) == (commit, True)
    (tmp_path / "copy").mkdir()
    (tmp_path / "copy" / "__init__.py").write_text("")
    assert commit_of(tmp_path / "copy") == (None, None)
