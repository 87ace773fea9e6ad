"""A training that is killed after some checkpoints, for tests that it resumes."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prunesid.pocket.training import loop
from prunesid.pocket.training.checkpoint import save_checkpoint


class _Killed(Exception):
    pass


def whole_and_resumed(
    monkeypatch: pytest.MonkeyPatch,
    train: Callable[[Path], Any],
    folder: Path,
    stops: tuple[int, ...],
) -> tuple[Any, Any]:
    """What `train` returns undisturbed, and after kills at `stops`, counted in checkpoints.

    Every step is a checkpoint. The undisturbed training is in `folder`/a.
    """
    monkeypatch.setattr(loop, "CHECKPOINT_STEPS", 1)
    whole = train(folder / "a")
    for stop in stops:
        saves = []

        def save(*arguments: Any, saves: list[Any] = saves, stop: int = stop) -> None:
            save_checkpoint(*arguments)
            saves.append(arguments)
            if len(saves) == stop:
                raise _Killed

        with monkeypatch.context() as patched, pytest.raises(_Killed):
            patched.setattr(loop, "save_checkpoint", save)
            train(folder / "b")
    return whole, train(folder / "b")
