"""Profiles and rules fit each other, and a large study is planned at once."""

from __future__ import annotations

import re
import resource
import subprocess

import pytest
import yaml
from builders import study_runs
from builders.study_runs import ROOT

LARGE = """\
title: A hundred thousand images
model: llava-hf/llava-1.5-7b-hf
model_options: {text_tower: openai/clip-vit-large-patch14-336}
benchmarks: [vqav2, seed, seed_image, vizwiz, textvqa, textvqa_plain, scienceqa, mme, mmbench,
             mmmu, gqa, pope]
ablations: [large]
shards: 40
dtype: bfloat16
device: cuda
"""
ABLATION = """\
title: Two hundred arms
vary:
  method: [prunesid, visionzip, vispruner, divprune, prumerge, hired, scope, dpp, holov, cls_topk,
           random, grid, pool, cdpruner]
across: {budget: [32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160, 192]}
"""


def profile(name: str) -> dict:
    return yaml.safe_load((ROOT / "profiles" / name / "profile.yaml").read_text())


def test_the_profile_of_slurm_repeats_what_everyone_needs():
    default, slurm = profile("default"), profile("slurm")
    shared = default.keys() - {"cores"}
    assert {key: slurm[key] for key in shared} == {key: default[key] for key in shared}
    assert slurm["executor"] == "slurm"
    assert slurm["retries"] >= 2


def test_every_rule_asks_for_its_resources_or_runs_where_snakemake_does():
    for path in (ROOT / "workflow" / "rules").glob("*.smk"):
        text = path.read_text()
        for block in re.split(r"^ *rule\b", text, flags=re.MULTILINE)[1:]:
            assert "localrule: True" in block or "**resources_of(" in block, (path.name, block[:60])


@pytest.mark.slow
def test_a_study_is_planned_by_the_profile_of_slurm(tmp_path):
    study_runs.run(tmp_path, "--workflow-profile", str(ROOT / "profiles/slurm"), "--dry-run")


@pytest.mark.slow
def test_a_large_study_is_planned_within_a_minute_and_two_gigabytes(tmp_path):
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "large.yaml").write_text(ABLATION)
    (tmp_path / "large.yaml").write_text(LARGE)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    command = study_runs.command("--workflow-profile", "none", "--cores", "2", "--dry-run")
    command[command.index("--configfile") + 1] = str(tmp_path / "large.yaml")
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    (jobs,) = re.findall(r"^total +(\d+)$", done.stdout, re.MULTILINE)[-1:]
    assert int(jobs) > 1900
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime < 60
    assert after.ru_maxrss < 2e6  # kB, of the largest child
