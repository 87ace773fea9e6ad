"""Runs in trackio read back as they were published; its failing touches nothing else."""

import json
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

import pytest
import yaml
from builders.published_runs import arm_run, comparison_run, pictured_run, snapshot
from builders.synthetic_scores import ROOT

from prunesid.study.config.study import load_study
from prunesid.study.tracking import Settings, plain
from prunesid.study.tracking.dashboard import main, recorded, view, write_views
from prunesid.study.tracking.json import Json
from prunesid.study.tracking.publish import deliver, publish
from prunesid.study.tracking.trackio import Trackio, surroundings

READ = """
import json, trackio
from trackio.sqlite_storage import SQLiteStorage
runs = {}
for run in trackio.Api().runs("prunesid"):
    assert run.name not in runs
    logs = SQLiteStorage.get_logs("prunesid", run.name, run_id=run.id)
    runs[run.name] = {"config": run.config, "logs": logs}
print(json.dumps(runs))
"""


def read_back(directory: Path) -> dict:
    """{run: {"config", "logs"}} of all runs in trackio."""
    done = subprocess.run(
        [sys.executable, "-P", "-c", READ],
        env=surroundings(directory),
        capture_output=True,
        text=True,
        check=True,
    )
    return json.loads(done.stdout.splitlines()[-1])


def place_of(directory: Path, media: dict) -> Path:
    return directory / "trackio" / "media" / media["file_path"]


def test_runs_read_back_as_published(tmp_path, monkeypatch, sheltered):
    home, _ = sheltered
    # The user's own trackio is on a server; these runs stay here all the same.
    monkeypatch.setenv("TRACKIO_SERVER_URL", "http://127.0.0.1:9/?write_token=x")
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "elsewhere"))
    directory = tmp_path / "runs"
    arm, pictured = arm_run(), pictured_run(tmp_path / "pictures")
    runs = [arm, pictured, comparison_run(tmp_path / "figures")]
    publication = publish(runs, directory, Settings(mode="disabled", trackio=True))
    assert not publication.failures
    assert [e.deliveries["trackio"].status for e in publication.entries] == ["written"] * 3
    assert publication.lines[-1].endswith("make dashboard")

    found = read_back(directory)
    assert set(found) == {"grouping/default", "grouping/pictured", "grouping/grouping"}
    config, (logged,) = found["grouping/default"]["config"], found["grouping/default"]["logs"]
    assert (config["id"], config["_Group"], config["stage"]) == (arm.id, "grouping", "score")
    assert (config["arm.budget"], config["tags"]) == (64, "pocket, budget 64, psca")
    for name, value in plain(arm.summary).items():
        assert logged.get(name) == value
    assert logged["predictions"]["_value"][1]["answer"] == "2"

    (logged,) = found["grouping/pictured"]["logs"]
    assert logged["pictures/2"]["caption"] == "blue: left and right"
    blue = pictured.pictures[1].path.read_bytes()
    assert place_of(directory, logged["pictures/2"]).read_bytes() == blue
    cells = [row["picture"] for row in logged["predictions"]["_value"]]
    assert place_of(directory, cells[0]).read_bytes() == blue and cells[1] == ""
    histogram = logged["pocket_pope/tokens_per_image"]
    assert (histogram["values"], histogram["bins"]) == ([1, 0, 3], [10, 20, 30, 40])

    (logged,) = found["grouping/grouping"]["logs"]
    assert logged["table"]["_value"][0] == {"row": "psca", "value": "81.25"}
    assert "81.25" in place_of(directory, logged["page"]).read_text()
    assert (
        place_of(directory, logged["figure"]).read_bytes() == runs[2].files["figure"].read_bytes()
    )

    before = snapshot(directory)
    assert publish(runs, directory, Settings(mode="disabled", trackio=True)) == publication
    assert snapshot(directory) == before
    assert list(home.iterdir()) == [] and not (tmp_path / "elsewhere").exists()


def test_a_new_result_takes_the_place_of_the_old_one(tmp_path):
    trackers = [Json(), Trackio("prunesid")]
    deliver([pictured_run(tmp_path / "pictures", "default")], tmp_path / "runs", trackers)
    changed = arm_run(summary={"pocket_pope/value": 82.0})
    deliver([changed], tmp_path / "runs", trackers)
    found = read_back(tmp_path / "runs")
    assert {name: run["config"]["id"] for name, run in found.items()} == {
        "grouping/default": changed.id
    }
    assert found["grouping/default"]["logs"][0]["pocket_pope/value"] == 82.0
    assert list((tmp_path / "runs" / "trackio" / "media").rglob("*.png")) == []


def test_trackio_that_fails_costs_no_run(tmp_path, monkeypatch, caplog):
    (tmp_path / "shim").mkdir()
    (tmp_path / "shim" / "trackio.py").write_text("raise ImportError('a broken trackio')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "shim"))
    settings = Settings(mode="offline", trackio=True)
    publication = publish([arm_run()], tmp_path / "runs", settings)
    reason = "ImportError: a broken trackio"
    assert publication.failures == {"trackio": reason}
    assert f"trackio failed for 1 of 1 runs: {reason}" in caplog.text
    assert f"not in it: {reason}" in publication.message()
    statuses = {name: d.status for name, d in publication.entries[0].deliveries.items()}
    assert statuses == {"json": "written", "wandb": "offline", "trackio": "failed"}
    monkeypatch.delenv("PYTHONPATH")
    assert not publish([arm_run()], tmp_path / "runs", settings).failures


def test_a_project_name_that_trackio_refuses_is_a_failure_with_its_reason(tmp_path):
    publication = deliver([arm_run()], tmp_path, [Json(), Trackio("registry-mine")])
    assert "'registry-mine' is not allowed" in publication.failures["trackio"]


@pytest.fixture
def study(tmp_path):
    path = tmp_path / "study.yaml"
    document = {
        "title": "T",
        "benchmarks": ["pocket_pope"],
        "ablations": ["grouping"],
        "results": str(tmp_path / "results"),
    }
    path.write_text(yaml.safe_dump(document))
    return path


def test_the_dashboard_needs_runs(study, capsys, tmp_path):
    assert main(["--config", str(study)]) == 1
    assert "There are no runs in" in capsys.readouterr().err
    study.write_text(study.read_text() + "trackio: false\n")
    with pytest.raises(FileNotFoundError, match="set `trackio: true`"):
        recorded(load_study(study))
    assert main(["--config", str(tmp_path / "stduy.yaml")]) == 1
    assert "Did you mean" in capsys.readouterr().err


def test_the_dashboard_serves_the_runs_on_loopback_alone(study, tmp_path):
    directory = tmp_path / "results" / "pocket" / "runs"
    deliver([arm_run(), arm_run("budget-128")], directory, [Json(), Trackio("prunesid")])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "prunesid.study.tracking.dashboard", "--config", str(study)]
    process = subprocess.Popen(
        [*command, "--port", str(port), "--no-browser"],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        address = f"http://127.0.0.1:{port}"
        runs = _asked(f"{address}/api/get_runs_for_project", {"project": "prunesid"}, process)
        names = {run["name"] for run in runs["data"]}
        assert names == {"grouping/default", "grouping/budget-128"}
        assert listening(port) == {"127.0.0.1"}
        settings = _asked(f"{address}/api/get_settings", {}, process)["data"]
        assert settings["plot_order"] == ["average/value", "pocket_pope/value"]
        # Without the token in the printed address nothing can be changed.
        gone = {"project": "prunesid", "run": "grouping/default"}
        with pytest.raises(urllib.error.HTTPError) as refused:
            _asked(f"{address}/api/delete_run", gone, process)
        assert "write_token" in refused.value.read().decode()
    finally:
        process.kill()
        process.wait()


def test_a_view_shows_the_runs_of_its_group_alone():
    runs = [("pocket/grouping/a, b", "1"), ("pocket/grouping/c", "2"), ("pocket/grouping2/a", "3")]
    url = view("http://127.0.0.1:7860/", "prunesid", runs, "pocket/grouping")
    parts = urllib.parse.urlparse(url)
    assert parts.path == "/"
    asked = urllib.parse.parse_qs(parts.query)
    assert (asked["project"], asked["run_ids"]) == (["prunesid"], ["1,2"])


def test_the_page_of_views_links_them_by_title(tmp_path):
    write_views({"A < B": "http://x/?a=1&b=2"}, "T", tmp_path / "dashboard.html")
    text = (tmp_path / "dashboard.html").read_text()
    assert '<a href="http://x/?a=1&amp;b=2">A &lt; B</a>' in text


def _asked(url: str, data: dict, process: subprocess.Popen) -> dict:
    request = urllib.request.Request(
        url, json.dumps(data).encode(), {"content-type": "application/json"}
    )
    for _ in range(3000):
        assert process.poll() is None, process.stderr.read()
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    raise AssertionError("the dashboard did not start")


def listening(port: int) -> set[str]:
    """The IPv4 addresses on which someone listens on a port; ':' for any on IPv6."""
    found = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        host, number = address.split(":")
        if int(number, 16) == port and state == "0A":
            found.add(socket.inet_ntoa(bytes.fromhex(host)[::-1]))
    for line in Path("/proc/net/tcp6").read_text().splitlines()[1:]:
        address, state = line.split()[1], line.split()[3]
        if int(address.split(":")[1], 16) == port and state == "0A":
            found.add(":")
    return found
