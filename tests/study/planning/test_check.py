"""The check before a study: everything that is missing, at once, and nothing else."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from builders.synthetic_scores import ROOT
from safetensors.torch import load_file, save_file

from prunesid.__main__ import main
from prunesid.pocket import EMBEDDED, WEIGHTS
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.study import Benchmark, load_study
from prunesid.study.planning.check import check
from prunesid.study.planning.checks.checkpoint import (
    INDEX,
    SINGLE,
    absent,
    as_tower,
    check_folder,
    check_repository,
)
from prunesid.study.planning.checks.data import check_data, check_token
from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding, summary, text
from prunesid.study.planning.checks.hub import Hub, NotReachable, NotThere, Repository
from prunesid.study.planning.checks.machine import (
    Device,
    Machine,
    check_disks,
    check_gpu,
    check_memory,
)
from prunesid.study.planning.checks.packages import check_packages, installed, required
from prunesid.study.planning.checks.scores import check_scores, refuse_unscorable
from prunesid.study.planning.checks.start import refuse_unready
from prunesid.study.planning.checks.tasks import task_data
from prunesid.study.planning.checks.wandb import check_wandb

GB = 10**9
LLAVA = "llava-hf/llava-1.5-7b-hf"
SHARDS = {"model-00001.safetensors": 9 * GB, "model-00002.safetensors": 5 * GB}
DOWNLOADABLE = Repository({"config.json": 1000, INDEX: 1000, **SHARDS})


class FakeHub:
    """A hub of these repositories; `files` lie in the cache."""

    def __init__(self, cache: Path, repositories=None, *, offline=False, token=True, datasets=()):
        self.cache, self.offline, self.has_token = cache, offline, token
        self.repositories, self.datasets, self.asked = repositories, datasets, []

    def cached(self, name, file):
        path = self.cache / name / file
        return path if path.is_file() else None

    def has_dataset(self, name):
        return name in self.datasets

    def look(self, name, kind):
        self.asked.append(name)
        if self.repositories is None:
            raise NotReachable("no route to host")
        if name not in self.repositories:
            raise NotThere(f"the hub shows no {kind} '{name}'")
        return self.repositories[name]


class FakeMachine:
    def __init__(self, gpus=(), memory=10**12, disk=10**13):
        self._gpus, self._memory, self._disk = list(gpus), memory, disk

    def gpus(self):
        return self._gpus

    def memory(self):
        return self._memory

    def free(self, folder):
        return 1, self._disk


A100 = Device("NVIDIA A100-SXM4-80GB", 79 * GB, 80 * GB)


def lay(folder: Path, files=(*SHARDS,)):
    """A sharded checkpoint's files."""
    folder.mkdir(parents=True)
    weights = {f"weight{number}": shard for number, shard in enumerate(SHARDS)}
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    for name in ("config.json", "tokenizer_config.json", "tokenizer.json", *files):
        # A header's length and the header, as safetensors begins.
        weights = name.endswith(".safetensors")
        (folder / name).write_bytes((2).to_bytes(8, "little") + b"{}" if weights else b'{"a": 1}')


def write(folder: Path, **fields) -> Path:
    document = {
        "title": "T",
        "model": LLAVA,
        "benchmarks": ["pocket_pope"],
        "ablations": ["grouping"],
        "device": "cuda",
        "results": str(folder / "results"),
        **fields,
    }
    path = folder / "study.yaml"
    path.write_text(json.dumps(document))
    return path


@pytest.fixture(autouse=True)
def empty_cache(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))


def states(findings, kind):
    return [finding.what for finding in findings if finding.state == kind]


# The whole check


def test_the_default_study_has_everything_and_asks_nobody(tmp_path):
    hub = FakeHub(tmp_path, None, token=False)
    found = check(ROOT / "configs" / "pocket.yaml", hub, FakeMachine())
    assert {finding.state for finding in found} == {OK}
    assert hub.asked == [] and summary(found) == "Everything is there."


def test_everything_that_is_missing_is_told_at_once(tmp_path):
    path = write(tmp_path)

    def version_of(name):
        return None if name == "pandas" else "0.1" if name == "transformers" else installed(name)

    machine = FakeMachine(memory=1, disk=1)
    found = check(path, FakeHub(tmp_path, None), machine, version_of)
    assert set(states(found, MISSING)) == {
        "package pandas",
        "package transformers",
        "GPU",
        "memory",
        "disk",
        "checkpoint",
    }
    assert all(finding.remedy for finding in found if finding.state == MISSING)
    assert "6 missing" in summary(found)


def test_a_machine_that_has_all_is_fine(tmp_path):
    hub = FakeHub(tmp_path / "hub", {LLAVA: DOWNLOADABLE})
    found = check(write(tmp_path), hub, FakeMachine([A100]))
    assert states(found, MISSING) == []
    assert any("14.0 GB to download" in finding.detail for finding in found)


def test_downloads_count_against_the_disk(tmp_path):
    hub = FakeHub(tmp_path / "hub", {LLAVA: DOWNLOADABLE})
    found = check(write(tmp_path), hub, FakeMachine([A100], disk=13 * GB))
    assert states(found, MISSING) == ["disk"]
    # Those that cannot be had now will have to be had all the same.
    found = check(write(tmp_path), FakeHub(tmp_path, None), FakeMachine([A100], disk=13 * GB))
    assert states(found, MISSING) == ["disk", "checkpoint"]


def test_a_study_with_mistakes_lists_them_beside_what_else_is_missing(tmp_path):
    path = write(tmp_path, ablations=["groping"], benchmarks=["pocket_pop"])
    found = check(path, FakeHub(tmp_path, None), FakeMachine())
    problems = "\n".join(f.detail for f in found if f.what == "study")
    assert "Did you mean 'grouping'" in problems and "Did you mean 'pocket_pope'" in problems
    assert "checkpoint" in states(found, MISSING)


@pytest.mark.parametrize("results", ["{}/study.yaml/r", "/proc/r"])
def test_results_that_cannot_be_written_are_told_as_a_run_tells_them(tmp_path, results):
    path = write(tmp_path, model="pocket", results=results.format(tmp_path))
    with pytest.raises(ConfigError) as refused:
        refuse_unready(load_study(path))
    found = check(path, FakeHub(tmp_path, None), FakeMachine([A100]))
    told = [f.detail for f in found if (f.state, f.what) == (MISSING, "study")]
    assert told == list(refused.value.problems) and "nothing can be written" in told[0]


def test_what_stops_a_start_is_told_once(tmp_path):
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "config.json").write_text('{"model_type": "llava"}')
    path = write(tmp_path, model=str(tmp_path / "m"))
    found = check(path, FakeHub(tmp_path, None), FakeMachine([A100]))
    assert sum("lacks tokenizer_config.json" in f.detail for f in found) == 1


def test_a_model_that_is_known_to_nobody_is_a_finding(tmp_path):
    found = check(write(tmp_path, model="some/model"), FakeHub(tmp_path, {}), FakeMachine())
    assert any("hf download some/model config.json" in f.detail for f in found)
    assert any("the hub shows no model" in f.detail for f in found)


def test_video_models_need_a_decoder_of_videos(tmp_path):
    path = write(tmp_path, model="LanguageBind/Video-LLaVA-7B-hf", ablations=["budget"])

    def version_of(name):
        return None if name == "av" else installed(name)

    found = check(path, FakeHub(tmp_path, None), FakeMachine([A100]), version_of)
    assert "package av" in states(found, MISSING)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("prunesid.study.planning.checks.hub.Hub", lambda: FakeHub(tmp_path, None))
    assert main(["check", str(write(tmp_path))]) == 1
    assert "not reachable" in capsys.readouterr().out
    assert main(["check", str(ROOT / "configs" / "quick.yaml")]) == 0
    assert "Everything is there." in capsys.readouterr().out


# Checkpoints


def test_a_folder_needs_every_shard(tmp_path):
    assert check_folder(WEIGHTS).state == OK
    lay(tmp_path / "whole")
    assert check_folder(tmp_path / "whole").state == OK
    lay(tmp_path / "part", files=[next(iter(SHARDS))])
    found = check_folder(tmp_path / "part")
    assert found.state == MISSING and "model-00002.safetensors" in found.detail
    (tmp_path / "whole" / INDEX).write_text("[]")
    assert f"lacks a readable {INDEX}" in check_folder(tmp_path / "whole").detail


def test_one_file_of_weights_will_do():
    names = ("config.json", "tokenizer_config.json", "tokenizer.model", SINGLE)
    there = {name: Path(name) for name in names}
    assert absent(there.get) == []
    words = "tokenizer.json or tokenizer.model or vocab.json"
    assert absent(lambda name: None) == ["config.json", "tokenizer_config.json", words, SINGLE]


@pytest.mark.parametrize("model", EMBEDDED)
def test_an_embedded_model_has_all(model):
    assert check_folder(EMBEDDED[model]) == Finding(OK, "checkpoint", str(EMBEDDED[model]))


def moved(old, new):
    return lambda folder: (folder / old).rename(folder / new)


def index(*names):
    weights = {f"w{number}": name for number, name in enumerate(names)}
    return lambda folder: (folder / INDEX).write_text(json.dumps({"weight_map": weights}))


def stored(change):
    """Weights whose header is changed; what tensors hold is not looked at."""

    def write(folder):
        weights = load_file(folder / SINGLE)
        change(weights)
        save_file(weights, folder / SINGLE)

    return write


GATE = "language_model.model.layers.5.mlp.gate_proj.weight"
FC1 = "vision_tower.encoder.layers.2.mlp.fc1.weight"


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (moved("tokenizer.json", "t"), "lacks tokenizer.json or tokenizer.model or vocab.json"),
        (moved("processor_config.json", "p"), "lacks preprocessor_config.json or processor_conf"),
        (moved(SINGLE, "pytorch_model.bin"), "pickled weights (pytorch_model.bin), and only safe"),
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "tokenizer.json is cut short"),
        (index("x" * 5000), "lacks a readable"),
        (index("x" * 5000 + ".safetensors"), f"lacks {'x' * 100}"),
        (index("/etc/passwd"), "lacks a readable"),
        (index(), "lacks a readable"),
        (lambda folder: (folder / INDEX).write_text("[" * 100_000), "lacks a readable"),
        (stored(lambda w: w.pop(GATE)), f"{GATE} is missing, by config.json 512 x 192"),
        (
            stored(lambda w: w.update({FC1: w[FC1][:3].clone()})),
            f"{FC1} is 3 x 128, by config.json 384",
        ),
    ],
)
def test_a_folder_that_could_not_be_loaded_is_found_before_it_is(tmp_path, damage, says):
    folder = tmp_path / "m"
    shutil.copytree(WEIGHTS, folder)
    damage(folder)
    path = write(tmp_path, model=str(folder), device="cpu")
    (found,) = [f for f in check(path, FakeHub(tmp_path, None), FakeMachine()) if f.state != OK]
    assert found.what == "checkpoint" and says in found.detail
    with pytest.raises(ConfigError) as refused:
        refuse_unready(load_study(path))
    assert refused.value.problems == (f"model: {found.detail}; {found.remedy}",)


@pytest.mark.parametrize("packed", ["", GATE])
def test_weights_that_were_packed_are_not_compared(packed, tmp_path):
    shutil.copytree(WEIGHTS, tmp_path / "m")
    chosen = stored(lambda w: w.update({n: w[n].to(torch.int8) for n in w if packed in n}))
    chosen(tmp_path / "m")
    assert check_folder(tmp_path / "m").state == OK


def test_a_text_tower_in_a_folder_is_looked_at(tmp_path):
    lay(tmp_path / "clip", files=[])
    (tmp_path / "clip" / "config.json").write_text('{"model_type": "clip"}')
    tower = {"text_tower": str(tmp_path / "clip")}
    path = write(tmp_path, model="pocket", device="cpu", model_options=tower)
    found = check(path, FakeHub(tmp_path, None), FakeMachine())
    assert states(found, MISSING) == ["text tower"]
    with pytest.raises(ConfigError, match=r"model_options\.text_tower: .* lacks model-00001"):
        refuse_unready(load_study(path))


def test_a_cached_checkpoint_asks_nobody(tmp_path):
    lay(tmp_path / LLAVA)
    hub = FakeHub(tmp_path, None, offline=True)
    found = check_repository(hub, LLAVA)
    assert (found.state, found.download, hub.asked) == (OK, 0.0, [])


@pytest.mark.parametrize(
    ("hub", "says"),
    [
        ({"offline": True}, "HF_HUB_OFFLINE"),
        ({}, "not reachable (no route to host)"),
        ({"repositories": {}}, "shows no model"),
        ({"repositories": {LLAVA: Repository({"pytorch_model.bin": 1})}}, "no safetensors"),
        ({"repositories": {LLAVA: Repository(SHARDS, gated=True, open=False)}}, "is gated"),
    ],
)
def test_why_a_checkpoint_cannot_be_had(tmp_path, hub, says):
    found = check_repository(FakeHub(tmp_path, **{"repositories": None, **hub}), LLAVA)
    assert found.state == MISSING and says in found.detail and LLAVA in found.detail
    assert found.remedy and found.download == 0.0


def test_a_text_tower_may_have_to_be_converted_by_the_hub(tmp_path):
    for files, state in (({"pytorch_model.bin": 1}, UNKNOWN), (SHARDS, OK)):
        hub = FakeHub(tmp_path, {LLAVA: Repository(files)})
        found = as_tower(check_repository(hub, LLAVA))
        assert (found.state, found.what) == (state, "text tower")
    assert as_tower(check_repository(FakeHub(tmp_path, {}), LLAVA)).state == MISSING


def test_the_text_tower_of_a_study_is_looked_for(tmp_path):
    path = write(tmp_path, model_options={"text_tower": "some/clip"})
    repositories = {LLAVA: DOWNLOADABLE, "some/clip": Repository({"pytorch_model.bin": 1})}
    found = check(path, FakeHub(tmp_path / "hub", repositories), FakeMachine([A100]))
    assert states(found, UNKNOWN) == ["text tower"]
    found = check(path, FakeHub(tmp_path / "hub", {LLAVA: DOWNLOADABLE}), FakeMachine([A100]))
    assert states(found, MISSING) == ["text tower"]


def test_a_gated_repository_needs_a_token_or_access(tmp_path):
    closed, opened = (Repository(SHARDS, gated=True, open=value) for value in (False, True))
    hub = FakeHub(tmp_path, {LLAVA: closed}, token=False)
    assert "hf auth login" in check_repository(hub, LLAVA).remedy
    found = check_repository(FakeHub(tmp_path, {LLAVA: opened}), LLAVA)
    assert (found.state, found.download) == (OK, 14 * GB) and "access granted" in found.detail


def test_half_a_download_is_told_from_none(tmp_path):
    lay(tmp_path / LLAVA, files=[])
    found = check_repository(FakeHub(tmp_path, {LLAVA: DOWNLOADABLE}), LLAVA)
    assert "the local cache lacks model-00001.safetensors" in found.detail


# The hub itself


def test_the_real_hub_gives_a_reason_and_is_asked_once(monkeypatch):
    from huggingface_hub import HfApi

    calls = []

    def fails(self, name, **options):
        calls.append(name)
        raise OSError("Name or service not known")

    monkeypatch.setattr(HfApi, "model_info", fails)
    hub = Hub()
    for name in ("a/b", "c/d"):
        with pytest.raises(NotReachable, match="Name or service not known"):
            hub.look(name, "model")
    assert calls == ["a/b"]


def test_the_real_cache_is_read(tmp_path):
    hub = Hub()
    hub.cache = tmp_path
    snapshot = tmp_path / "datasets--a--b" / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    (snapshot / "README.md").write_text("")
    assert not hub.has_dataset("a/b") and hub.cached("a/b", "config.json") is None
    (snapshot / "part.parquet").write_text("")
    assert hub.has_dataset("a/b")


# Data


def test_tasks_are_read_without_running_them(tmp_path):
    (tmp_path / "_shared").write_text(
        "dataset_path: org/set\ndataset_kwargs: {token: True}\nf: !function utils.f\n"
    )
    (tmp_path / "one.yaml").write_text("include: _shared\ntask: one # the first\n")
    (tmp_path / "two.yaml").write_text(
        'task: "two"\ndataset_path: parquet\ndataset_kwargs:\n  data_files: {test: [a.parquet]}\n'
    )
    (tmp_path / "both.yaml").write_text("group: both\ntask: [one, two]\n")
    one, two = task_data("both", (tmp_path,))
    assert (one.task, one.repository, one.needs_token) == ("one", "org/set", True)
    assert (two.repository, two.files) == (None, (Path("a.parquet"),))
    with pytest.raises(ValueError, match="no lmms-eval task 'three'"):
        task_data("three", (tmp_path,))


def test_lmms_eval_s_own_tasks_are_found():
    assert task_data("gqa")[0].repository.endswith("/GQA")
    assert len(task_data("pope_full")) == 3


def test_data_is_looked_for_in_the_cache_then_on_the_hub(tmp_path):
    name = task_data("gqa")[0].repository
    cached = FakeHub(tmp_path, None, offline=True, datasets=[name])
    assert [f.state for f in check_data(cached, ["gqa", "gqa_lite"])] == [OK, MISSING]
    online = FakeHub(tmp_path, {name: Repository({"a.parquet": 20 * GB})})
    (found,) = check_data(online, ["gqa"])
    # No more than what the task reads of the repository.
    assert found.state == OK and 0 < found.download < GB
    assert next(check_data(FakeHub(tmp_path, None), ["gqa"])).state == MISSING
    assert next(check_data(online, ["no_such_task"])).state == MISSING


def benchmark(task, metric):
    return Benchmark("b", "B", "", task, metric, "mean", None)


JUDGED = benchmark("llava_in_the_wild", "gpt_eval_llava_all")


def test_a_judge_needs_a_key(tmp_path, monkeypatch):
    for name in ("OPENAI_API_KEY", "API_TYPE"):
        monkeypatch.delenv(name, raising=False)
    (found,) = check_scores([JUDGED])
    assert (found.state, found.what) == (MISSING, "scores of b")
    assert "set OPENAI_API_KEY" in found.detail and "llava_bench_local" in found.detail
    path = write(tmp_path, benchmarks=["llava_bench"])
    assert found.detail in {f.detail for f in check(path, FakeHub(tmp_path, None), FakeMachine())}
    monkeypatch.setenv("OPENAI_API_KEY", "k")
    assert [f.state for f in check_scores([JUDGED])] == [OK]


def test_a_metric_is_one_of_the_task_s():
    (found,) = check_scores([benchmark("pope", "pope_f1")])
    assert found.state == MISSING and "Did you mean 'pope_f1_score'" in found.detail
    f1 = benchmark("pope", "pope_f1_score,none")
    assert not list(check_scores([replace(f1, statistic="f1")]))
    with pytest.raises(ValueError, match="mean does not give pope_f1_score; choose f1"):
        refuse_unscorable(f1)
    with pytest.raises(ValueError, match="no lmms-eval task"):
        refuse_unscorable(benchmark("no_such_task", "exact_match"))


def test_nothing_starts_that_could_not_be_scored(tmp_path):
    path = write(tmp_path, model="pocket", device="cpu", benchmarks=["llava_bench"])
    kept = {name: value for name, value in os.environ.items() if name != "OPENAI_API_KEY"}
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "snakemake",
            "-n",
            "-s",
            str(ROOT / "Snakefile"),
            "--configfile",
            path,
        ],
        cwd=tmp_path,
        env=kept,
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode and "benchmark llava_bench: a language model decides" in said


def test_a_token_is_asked_for_where_a_task_insists(tmp_path):
    assert [f.state for f in check_token(FakeHub(tmp_path, {}, token=False), ["gqa"])] == [MISSING]
    assert [f.state for f in check_token(FakeHub(tmp_path, {}), ["gqa"])] == [OK]
    assert not list(check_token(FakeHub(tmp_path, {}, token=False), ["pocket_pope"]))
    offline = FakeHub(
        tmp_path, None, token=False, offline=True, datasets=[task_data("gqa")[0].repository]
    )
    assert [f.state for f in check_token(offline, ["gqa"])] == [OK]


def test_a_wandb_key_is_needed_only_to_be_online(tmp_path):
    def states_of(mode, **environment):
        return [f.state for f in check_wandb(mode, environment, tmp_path)]

    assert states_of("auto") == states_of("offline") == []
    assert states_of("online") == [MISSING]
    assert states_of("online", WANDB_API_KEY="k") == [OK]
    (tmp_path / ".netrc").write_text("machine api.wandb.ai login user password k\n")
    assert states_of("online") == [OK]
    assert states_of("online", WANDB_BASE_URL="http://wandb.example:8080") == [MISSING]


# Machine and packages


def test_gpus_are_weighed_against_the_need():
    def state(device, need, gpus=(A100,), small=False):
        return check_gpu(FakeMachine(gpus), device, need, small).state

    assert state("cuda", 30 * GB) == OK
    assert state("cuda", 90 * GB) == MISSING
    assert state("cuda:1", GB) == MISSING
    assert state("cuda:1", GB, (A100, A100)) == OK
    assert state("cuda", GB, ()) == state("auto", GB, ()) == MISSING
    assert state("auto", GB, (), small=True) == state("cpu", 10**15, ()) == OK
    busy = check_gpu(FakeMachine([Device("A100", GB, 80 * GB)]), "cuda", 30 * GB, False)
    assert "end what else runs" in busy.remedy


def test_memory_and_disks():
    assert check_memory(FakeMachine(memory=GB), 2 * GB).state == MISSING
    assert check_memory(FakeMachine(memory=None), 2 * GB).state == UNKNOWN
    needs = {Path("a"): ("results", 2.0 * GB), Path("b"): ("downloads", 2.0 * GB)}
    # Both on one disk: neither need alone is too much.
    assert [f.state for f in check_disks(FakeMachine(disk=3 * GB), needs)] == [MISSING]
    assert [f.state for f in check_disks(FakeMachine(disk=5 * GB), needs)] == [OK]


def test_this_machine_answers(tmp_path):
    machine = Machine()
    number, free = machine.free(tmp_path / "not" / "there")
    assert number == tmp_path.stat().st_dev and free > 0
    assert machine.memory() is None or machine.memory() > 0
    assert isinstance(machine.gpus(), list)


def test_packages_follow_the_project_s_extras():
    names = {one.name for one in required(["study"])}
    assert {"torch", "transformers", "scikit-learn", "snakemake"} <= names
    assert "prunesid" not in names and "wandb" not in names
    assert "wandb" in {one.name for one in required(["study", "wandb"])}
    assert [f.state for f in check_packages(["study"])] == [OK]
    old = list(check_packages(["models"], version_of=lambda name: "0.0.1"))
    assert "package torch" in states(old, MISSING) and "package transformers" in states(
        old, MISSING
    )


def test_lines_say_what_to_do():
    shown = text([Finding(OK, "a", "fine"), Finding(MISSING, "bee", "gone", "get it")])
    assert shown.splitlines()[1:] == ["missing  bee  gone", "              -> get it"]
