import dataclasses
import math
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

import pytest

from prunesid.core.files import (
    atomic,
    digest,
    file_digest,
    sweep,
    temporary_beside,
    temporary_prefix,
    write_changed,
)


def test_atomic_writes_whole_files_only(tmp_path):
    target = tmp_path / "new" / "table.csv"
    with atomic(target) as path:
        assert path.parent == target.parent
        assert path.suffix == ".csv"
        path.write_text("one")
        assert not target.exists()
    assert target.read_text() == "one"


def test_atomic_leaves_the_old_file_when_the_block_fails(tmp_path):
    target = tmp_path / "table.csv"
    target.write_text("one")

    def fail():
        with atomic(target) as path:
            path.write_text("half")
            raise RuntimeError("interrupted")

    with pytest.raises(RuntimeError, match="interrupted"):
        fail()
    assert target.read_text() == "one"
    assert list(tmp_path.iterdir()) == [target]


def test_digest_is_of_the_content():
    @dataclasses.dataclass(frozen=True)
    class Arm:
        budget: int
        layers: frozenset[int]

    assert digest({"a": 1, "b": [2, None]}) == digest({"b": (2, None), "a": 1})
    assert digest({"a": 1}) != digest({"a": 1.5})
    assert digest(Arm(64, frozenset({2, 1}))) == digest({"budget": 64, "layers": [1, 2]})
    assert digest(Path("a/b")) == digest("a/b")
    assert len(digest(None)) == 16
    assert set(digest(None)) <= set("0123456789abcdef")
    with pytest.raises(TypeError, match="no canonical JSON for object"):
        digest(object())
    with pytest.raises(ValueError, match="JSON"):
        digest(math.nan)


def test_file_digest_is_of_the_content(tmp_path):
    one, other = tmp_path / "one", tmp_path / "other"
    one.write_bytes(b"x")
    other.write_bytes(b"x")
    assert file_digest(one) == file_digest(other)
    other.write_bytes(b"y")
    assert file_digest(one) != file_digest(other)


KILLED = """
import os, signal, sys, tempfile
from pathlib import Path
from prunesid.core.files import atomic, temporary_prefix
folder = Path(sys.argv[1])
with atomic(folder / "deep" / "table.csv") as path:
    path.write_text("half")
    inside = tempfile.mkdtemp(prefix=temporary_prefix(), dir=folder)
    Path(inside, "part.safetensors").write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_left_is_swept_and_nothing_else(tmp_path):
    for name in ("whole.csv", ".hidden", ".tmp-of-somebody"):
        (tmp_path / name).write_text("whole")
    kept = set(tmp_path.rglob("*"))
    killed = subprocess.run([sys.executable, "-c", KILLED, tmp_path], check=False)
    assert killed.returncode == -9
    left = set(tmp_path.rglob("*")) - kept - {tmp_path / "deep"}
    assert len(left) == 3
    with atomic(tmp_path / "mine.csv") as mine:
        mine.write_text("being written")
        swept = sweep(tmp_path)
        assert {path for path in left if path in swept or path.parent in swept} == left
        assert mine.exists()
    assert set(tmp_path.rglob("*")) == kept | {tmp_path / "deep", tmp_path / "mine.csv"}


def test_what_another_machine_left_is_swept_once_nothing_was_written_for_a_day(tmp_path):
    folder = tmp_path / temporary_prefix().replace(platform.node(), "elsewhere")
    folder = folder.with_name(f"{folder.name}0123abcd")
    folder.mkdir()
    (folder / "part").write_text("half")
    long_ago = time.time() - 2 * 24 * 3600
    os.utime(folder, (long_ago, long_ago))
    assert sweep(tmp_path) == []
    os.utime(folder / "part", (long_ago, long_ago))
    assert sweep(tmp_path) == [folder] and not folder.exists()


def test_a_temporary_name_keeps_folder_and_suffix():
    beside = temporary_beside(Path("results/table.csv"))
    assert (beside.parent, beside.suffix) == (Path("results"), ".csv")


def test_a_file_with_the_same_text_keeps_its_time(tmp_path):
    path = tmp_path / "new" / "asked.json"
    write_changed(path, "[1]\n")
    os.utime(path, (1, 1))
    write_changed(path, "[1]\n")
    assert path.stat().st_mtime == 1
    write_changed(path, "[2]\n")
    assert path.stat().st_mtime > 1 and path.read_text() == "[2]\n"
