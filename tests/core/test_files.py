import dataclasses
import math
from pathlib import Path

import pytest

from prunesid.core.files import atomic, digest, file_digest


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
