"""A GPU that a scheduler gives and the study's own locks are one choice, on pretend devices."""

from __future__ import annotations

import os
import tempfile
from types import SimpleNamespace

import pytest
import torch

from prunesid.study.stages import device
from prunesid.study.stages.device import device_slot

NODE = ("GPU-a", "GPU-b", "GPU-c")


@pytest.fixture(autouse=True)
def pretend(monkeypatch, tmp_path):
    """Three GPUs, of which a process sees those that CUDA_VISIBLE_DEVICES names."""

    def seen():
        given = os.environ.get("CUDA_VISIBLE_DEVICES")
        return NODE if given is None else [NODE[int(number)] for number in given.split(",")]

    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen()))
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(uuid=seen()[number])
    )


def test_every_job_takes_the_gpu_that_it_was_given(monkeypatch):
    for number in "210":
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", number)
        # The only one that the job sees, under the number that torch gives it.
        with device_slot("cuda") as own:
            assert own == "cuda:0"


def test_a_job_without_a_scheduler_leaves_given_gpus_alone(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with device_slot("cuda"):
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
        with device_slot("cuda") as beside:
            assert beside == "cuda:1"


def test_given_gpus_are_told_apart_whatever_their_number(monkeypatch):
    def refuse(seconds):
        raise TimeoutError

    monkeypatch.setattr(device.time, "sleep", refuse)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with device_slot("cuda"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2")
        with device_slot("cuda") as other:
            assert other == "cuda:0"
        # The same one again is the mistake that the lock is for.
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
        with pytest.raises(TimeoutError), device_slot("cuda"):
            pass
