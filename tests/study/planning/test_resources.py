"""What jobs ask of a scheduler follows from the estimate and the study's device."""

from __future__ import annotations

import math

import pytest

from prunesid.study.config.study import parse_study
from prunesid.study.planning import resources
from prunesid.study.planning.estimate import estimate
from prunesid.study.planning.resources import RUN_MODEL, job_needs, largest_part

REAL = {
    "title": "A real model",
    "model": "llava-hf/llava-1.5-7b-hf",
    "benchmarks": ["gqa", "llava_bench_local"],
    "ablations": ["methods"],
    "overrides": {"methods": {"vary": {"method": ["prunesid", "tome"]}}},
    "dtype": "bfloat16",
    "device": "cuda",
}
POCKET = {"title": "Pocket", "benchmarks": ["pocket_mme"], "ablations": ["grouping"]}


def needs(document, **changed):
    return job_needs(parse_study(document | changed))


def test_only_what_runs_on_a_gpu_asks_for_one(tmp_path):
    found = needs(REAL, results=str(tmp_path))
    assert {stage for stage, _ in found} >= {"features", "select", "answer", "score", "compare"}
    assert all(each.gpus == (stage in RUN_MODEL | {"select"}) for (stage, _), each in found.items())
    on_cpu = needs(POCKET, device="cpu", results=str(tmp_path))
    assert {each.gpus for each in on_cpu.values()} == {0}


def test_a_job_gets_several_times_what_it_is_estimated_to_take(tmp_path):
    study = parse_study({**POCKET, "device": "cpu", "results": str(tmp_path)})
    expected, found = estimate(study), job_needs(study)
    assert {(step.stage, step.name) for step in expected.steps} == set(found)
    for step in expected.steps:
        minutes = resources.MARGIN * expected.rates.seconds(step.left) / 60
        asked = found[step.stage, step.name].minutes
        assert asked == max(resources.LEAST_MINUTES, math.ceil(minutes))


def test_the_checkpoint_fits_into_memory_on_either_device(tmp_path):
    for device in ("cuda", "cpu"):
        found = needs(REAL, device=device, results=str(tmp_path))
        assert found["answer", "gqa"].memory_mb > 14_000
        assert found["select", "gqa"].memory_mb < 6_000


def test_parts_take_less_each(tmp_path):
    whole, parts = (needs(REAL, shards=n, results=str(tmp_path)) for n in (1, 4))
    share = parts["answer", "gqa"].minutes / whole["answer", "gqa"].minutes
    assert 1 / 4 <= share < 1 / 2
    # 24 images are one block, which no part can share with another.
    assert parts["answer", "llava_bench_local"] == whole["answer", "llava_bench_local"]


@pytest.mark.parametrize(("images", "share"), [(0, 1.0), (24, 1.0), (6400, 0.25)])
def test_the_largest_part_has_whole_blocks(images, share):
    study = parse_study(REAL | {"shards": 4, "batch_size": 8})
    assert largest_part(study, images) == share


def test_a_benchmark_of_unknown_size_gets_a_day(tmp_path, monkeypatch):
    from prunesid.study.config.hub_models import TaskSize

    monkeypatch.setattr(resources, "size_of", lambda study, benchmark: TaskSize())
    found = needs(REAL, results=str(tmp_path))
    assert found["answer", "gqa"].minutes >= resources.UNKNOWN_MINUTES
