"""Shared fixtures."""

from __future__ import annotations

import os

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections.abc import Callable
from pathlib import Path

import pytest
from builders.tiny_llava import random_images, save_tiny_llava

from prunesid.core import numerics
from prunesid.methods.features.prunesid import nms, psca


@pytest.fixture(scope="session")
def tiny_llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a saved tiny LLaVA, to be loaded through the Auto classes."""
    folder = tmp_path_factory.mktemp("tiny_llava")
    save_tiny_llava(folder)
    return folder


@pytest.fixture
def accelerator(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """A function from whose call on every tensor counts as one on an accelerator."""

    def enter() -> None:
        for module in (numerics, nms, psca):
            monkeypatch.setattr(module, "on_cpu", lambda _: False)

    return enter


@pytest.fixture
def images() -> list:
    return random_images(6)
