"""The machine: its GPUs, memory and disks against what a study needs."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prunesid.study.planning.checks.finding import MISSING, OK, UNKNOWN, Finding


@dataclass(frozen=True)
class Device:
    """A GPU; `free` and `total` in bytes."""

    name: str
    free: int
    total: int


class Machine:
    """The machine that this process runs on."""

    def gpus(self) -> list[Device]:
        """The CUDA devices that torch sees."""
        import torch

        if not torch.cuda.is_available():
            return []
        return [
            Device(torch.cuda.get_device_name(i), *torch.cuda.mem_get_info(i))
            for i in range(torch.cuda.device_count())
        ]

    def memory(self) -> int | None:
        """Bytes that programs can still have; None where the system does not say."""
        status = Path("/proc/meminfo")
        if not status.is_file():
            return None
        rows = dict(line.split(":", 1) for line in status.read_text().splitlines())
        return int(rows["MemAvailable"].split()[0]) * 1024 if "MemAvailable" in rows else None

    def free(self, folder: Path) -> tuple[int, int]:
        """The number of the disk that a folder is or will be on, and its free bytes."""
        resolved = folder.resolve()
        there = next(p for p in (resolved, *resolved.parents) if p.exists())
        return there.stat().st_dev, shutil.disk_usage(there).free


def mount_of(path: Path) -> Path:
    """Where the disk is mounted on which a path is or will be."""
    resolved = path.resolve()
    return next(each for each in (resolved, *resolved.parents) if each.is_mount())


def check_gpu(machine: Machine, device: str, need: float, small: bool) -> Finding:
    """The study's `device` against `need` bytes; a `small` model is as well off without a GPU."""
    if device in ("cpu", "mps"):
        return Finding(OK, "GPU", f"none is asked for (device: {device})")
    gpus, number = machine.gpus(), int(device.partition(":")[2] or 0)
    if not gpus and device == "auto" and small:
        return Finding(OK, "GPU", "none, and none is needed")
    if not gpus:
        detail = f"torch sees none; {_gb(need)} of GPU memory are needed"
        remedy = "a machine with one and torch's CUDA build; device: cpu would take its time"
        return Finding(MISSING, "GPU", detail, remedy)
    if number >= len(gpus):
        detail = f"{device}: there are only {len(gpus)}"
        return Finding(MISSING, "GPU", detail, "another number in `device`")
    gpu = gpus[number]
    detail = f"{gpu.name}, {_gb(gpu.free)} free of {_gb(gpu.total)}, {_gb(need)} needed"
    enough = gpu.total >= need
    remedy = "end what else runs on it" if enough else "a smaller batch_size, or a larger GPU"
    return _against(gpu.free, need, "GPU", detail, remedy)


def check_memory(machine: Machine, need: float) -> Finding:
    """The machine's own memory."""
    have = machine.memory()
    if have is None:
        return Finding(UNKNOWN, "memory", f"the system does not say; {_gb(need)} are needed")
    remedy = "a limit on images (`limit`), or fewer layers in the ablations"
    return _against(have, need, "memory", f"{_gb(have)} free, {_gb(need)} needed", remedy)


def check_disks(machine: Machine, needs: Mapping[Path, tuple[str, float]]) -> Iterator[Finding]:
    """Free space where things will lie: {folder: (what goes there, bytes)}, disk by disk."""
    disks: dict[int, tuple[int, list[tuple[Path, str, float]]]] = {}
    for folder, (what, size) in needs.items():
        number, free = machine.free(folder)
        disks.setdefault(number, (free, []))[1].append((folder, what, size))
    remedy = "room there, or other places: `results` in the study, HF_HOME for downloads"
    for free, parts in disks.values():
        need = sum(size for *_, size in parts)
        listed = ", ".join(f"{what} {_gb(size)} in {folder}" for folder, what, size in parts)
        yield _against(
            free, need, "disk", f"{_gb(free)} free, {_gb(need)} needed ({listed})", remedy
        )


def _against(have: float, need: float, what: str, detail: str, remedy: str) -> Finding:
    return Finding(OK, what, detail) if have >= need else Finding(MISSING, what, detail, remedy)


def _gb(number: float) -> str:
    return f"{number / 1e9:,.1f} GB"
