"""No test of this folder reaches the user's account."""

import os

import pytest


@pytest.fixture(autouse=True)
def sheltered(tmp_path, monkeypatch):
    """A home and working directory of its own, and no trace of the user's account."""
    for name in [n for n in os.environ if n.startswith(("WANDB_", "TRACKIO_"))]:
        monkeypatch.delenv(name)
    monkeypatch.delenv("NETRC", raising=False)
    home, here = tmp_path / "home", tmp_path / "here"
    for folder in (home, here):
        folder.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(home / ".config"))
    monkeypatch.chdir(here)
    return home, here
