"""The machine: its GPUs, memory and disks against what a study needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding


@dataclass(frozen=True)
class Device:
    """A GPU; `free` and `total` in bytes."""

    name: str
    free: int
    total: int


class Machine(Protocol):
    def gpus(self) -> list[Device]:
        """The CUDA devices that torch sees."""
        ...

    def memory(self) -> int | None:
        """Bytes that programs can still have; None where the system does not say."""
        ...

    def free(self, folder: Path) -> tuple[int, int]:
        """The number of the disk that a folder is or will be on, and its free bytes."""
        ...


class ThisMachine:
    def gpus(self) -> list[Device]:
        import torch

        if not torch.cuda.is_available():
            return []
        return [
            Device(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i))
            for i in range(torch.cuda.device_count())
        ]

    def memory(self) -> int | None:
        status = Path("/proc/meminfo")
        if not status.is_file():
            return None
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else None

    def free(self, folder: Path) -> tuple[int, int]:
        resolved = folder.resolve()
        place = next(p for p in (resolved, *resolved.parents) if p.exists())
        return place.stat().st_dev, shutil.disk_usage(place).free


def check_gpu(machine: Machine, device: str, need: float, small: bool) -> Iterator[Finding]:
    """The study's `device` against `need` bytes; a `small` model is as well off without a GPU."""
    if device == "cpu" or device == "mps":
        yield Finding(OK, "GPU", f"none is asked for (device: {device})")
        return
    found = machine.gpus()
    number = int(device.partition(":")[2] or 0)
    if not found:
        if device == "auto" and small:
            yield Finding(OK, "GPU", "none, and none is needed")
            return
        yield Finding(
            MISSING, "GPU", f"torch sees none; {_gb(need)} of GPU memory are needed",
            "a machine with one and torch's CUDA build; device: cpu would take its time",
        )  # fmt: skip
        return
    if number >= len(found):
        yield Finding(
            MISSING, "GPU", f"{device}: there are only {len(found)}", "another number in `device`"
        )
        return
    gpu = found[number]
    have = f"{gpu.name}, {_gb(gpu.free)} free of {_gb(gpu.total)}, {_gb(need)} needed"
    if gpu.free >= need:
        yield Finding(OK, "GPU", have)
    elif gpu.total >= need:
        yield Finding(MISSING, "GPU", have, "end what else runs on it")
    else:
        yield Finding(MISSING, "GPU", have, "a smaller batch_size, or a larger GPU")


def check_memory(machine: Machine, need: float) -> Iterator[Finding]:
    """The machine's own memory."""
    have = machine.memory()
    if have is None:
        yield Finding(UNKNOWN, "memory", f"the system does not say; {_gb(need)} are needed")
    elif have >= need:
        yield Finding(OK, "memory", f"{_gb(have)} free, {_gb(need)} needed")
    else:
        yield Finding(
            MISSING, "memory", f"{_gb(have)} free, {_gb(need)} needed",
            "a limit on images (`limit`), or fewer layers in the ablations",
        )  # fmt: skip


def check_disks(machine: Machine, needs: Mapping[Path, tuple[str, float]]) -> Iterator[Finding]:
    """Free space where things will lie: {folder: (what goes there, bytes)}, disk by disk."""
    disks: dict[int, tuple[int, list[tuple[Path, str, float]]]] = {}
    for folder, (what, size) in needs.items():
        number, free = machine.free(folder)
        disks.setdefault(number, (free, []))[1].append((folder, what, size))
    for free, parts in disks.values():
        need = sum(size for *_, size in parts)
        places = ", ".join(f"{what} {_gb(size)} in {folder}" for folder, what, size in parts)
        detail = f"{_gb(free)} free, {_gb(need)} needed ({places})"
        if free >= need:
            yield Finding(OK, "disk", detail)
        else:
            yield Finding(
                MISSING, "disk", detail,
                "room there, or other places: `results` in the study, HF_HOME for downloads",
            )  # fmt: skip


def _gb(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
