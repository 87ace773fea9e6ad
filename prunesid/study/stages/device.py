"""A GPU of its own for each job, and the model on it.

Snakemake counts GPUs and assigns none: a job that starts takes the first GPU that no other job of
this user holds. A lock on a file holds it. The system drops the lock with the process, however the
process ends.
"""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from stat import S_ISDIR
from typing import TYPE_CHECKING

from prunesid.families import load
from prunesid.study.provenance.contents import model_path
from prunesid.study.stages.source import Runtime

if TYPE_CHECKING:
    from prunesid.families.base import Adapter

log = logging.getLogger(__name__)
SECONDS = 2.0


@contextmanager
def device_slot(device: str) -> Iterator[str]:
    """The device to use while the context lasts: for "cuda" one GPU, such as "cuda:1".

    Any other device is returned as it is.

    Waits while other jobs hold all GPUs that torch sees.
    """
    if device != "cuda":
        yield device
        return
    # One folder for all jobs of the user, whatever their study and working directory.
    folder = Path(tempfile.gettempdir()) / f"prunesid-gpus-{os.getuid()}"
    with hold_one(_gpus(), folder) as number:
        yield f"cuda:{number}"


@contextmanager
def model_of(runtime: Runtime, task: str) -> Iterator[Adapter]:
    """The loaded model of a study, on a device of its own while the context lasts.

    task  what it is asked, for the message where memory does not suffice
    """
    with device_slot(runtime.device) as device, room(f"{runtime.model} on {task}", device):
        path = model_path(runtime.model)
        yield load(path, device, runtime.dtype, **dict(runtime.options))


@contextmanager
def room(what: str, device: str) -> Iterator[None]:
    """Turn torch's out-of-memory error into a MemoryError that says what helps."""
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise MemoryError(
            f"{what}: the memory of {device} does not suffice, and no smaller batch is possible. "
            "What helps: `dtype: bfloat16` in the study, fewer patches (`frames` of a clip, or "
            "the model's options, docs/models.md), a GPU with more memory, nothing else on it"
        ) from error


def device_name(device: str = "auto") -> str:
    """The name of the CUDA GPU that `device` means, else of the CPU, with "(mps)" for that device.

    A CUDA device that torch cannot find is named as given.
    """
    import torch

    if device.startswith("cuda") or (device == "auto" and torch.cuda.is_available()):
        try:
            return torch.cuda.get_device_name(None if device == "auto" else device)
        except (AssertionError, RuntimeError):
            return device
    if device == "mps" or (device == "auto" and torch.backends.mps.is_available()):
        return f"{_cpu()} (mps)"
    return _cpu()


def _cpu() -> str:
    described = Path("/proc/cpuinfo")
    if described.is_file():
        for line in described.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _gpus() -> list[str]:
    """UUIDs of the GPUs that torch sees: the same in every process, whichever GPUs are visible."""
    import torch

    count = torch.cuda.device_count()
    if not count:
        raise ValueError("device: cuda, but torch sees no GPU; choices: cpu, auto")
    return [str(torch.cuda.get_device_properties(number).uuid) for number in range(count)]


@contextmanager
def hold_one(names: Sequence[str], folder: Path, seconds: float = SECONDS) -> Iterator[int]:
    """Hold the first of `names` that no other process holds, and return its place among them.

    Asks again every `seconds` while all are held. The locks are files of `folder`. ValueError if
    the folder is not this user's alone: another user could put links to any file there.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.lstat()
    if not S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise ValueError(
            f"{folder}, for locks on GPUs, is a link or not yours alone; remove it, or set TMPDIR "
            "to a folder of yours"
        )
    waiting = False
    while True:
        for number, name in enumerate(names):
            # No link is followed, and nothing in a file is lost.
            flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
            with open(os.open(folder / f"{name}.lock", flags, mode=0o600), "w") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    continue
                yield number
                return
        if not waiting:
            log.warning("all %d GPUs are taken by other jobs; waiting for one", len(names))
            waiting = True
        time.sleep(seconds)
