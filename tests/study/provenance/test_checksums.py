"""Checksums that are remembered: nothing that was written since is taken for what it was."""

from __future__ import annotations

import json
import os

import pytest

from prunesid.core.files import checksum
from prunesid.study.provenance import checksums
from prunesid.study.provenance.checksums import Checksums
from prunesid.study.provenance.seals import drop_damaged_files, seal
from prunesid.study.provenance.store import Store


@pytest.fixture
def read(monkeypatch):
    """The files that were read."""
    found = []
    monkeypatch.setattr(checksums, "checksum", lambda path: found.append(path) or checksum(path))
    monkeypatch.setattr(checksums, "SETTLED_NS", 0)
    return found


def remembered(folder):
    """The checksums of a new process."""
    return Checksums(folder / ".checksums.json")


def test_a_file_is_read_once(tmp_path, read):
    table, memory = tmp_path / "table.csv", remembered(tmp_path)
    table.write_text("one")
    assert memory(table) == checksum(table)
    memory.save()
    again = remembered(tmp_path)
    assert again(table) == checksum(table)
    assert read == [table]


def test_a_write_is_seen_even_with_the_old_time_and_size(tmp_path, read):
    table, memory = tmp_path / "table.csv", remembered(tmp_path)
    table.write_text("one")
    memory(table)
    memory.save()
    then = table.stat()
    table.write_text("two")
    os.utime(table, ns=(then.st_atime_ns, then.st_mtime_ns))
    # The clock of a file system may stand still for some milliseconds.
    while table.stat().st_ctime_ns == then.st_ctime_ns:
        os.utime(table, ns=(then.st_atime_ns, then.st_mtime_ns))
    assert remembered(tmp_path)(table) == checksum(table)
    assert len(read) == 2


def test_what_was_written_just_now_is_not_remembered(tmp_path, read, monkeypatch):
    monkeypatch.setattr(checksums, "SETTLED_NS", 10**12)
    table, memory = tmp_path / "table.csv", remembered(tmp_path)
    table.write_text("one")
    memory(table)
    memory.save()
    remembered(tmp_path)(table)
    assert len(read) == 2


@pytest.mark.parametrize("damage", ["{", "[]", '{"table.csv": 3}', "\x00"])
def test_a_damaged_memory_is_none(tmp_path, read, damage):
    (tmp_path / ".checksums.json").write_text(damage)
    table = tmp_path / "table.csv"
    table.write_text("one")
    assert remembered(tmp_path)(table) == checksum(table)


def test_it_forgets_what_nobody_asks_for(tmp_path, read):
    first, second, memory = tmp_path / "first", tmp_path / "second", remembered(tmp_path)
    for path in (first, second):
        path.write_text(path.name)
        memory(path)
    memory.save()
    later = remembered(tmp_path)
    later(first)
    later.save()
    assert "second" not in (tmp_path / ".checksums.json").read_text()


def test_seals_and_the_store_find_damage_through_it(tmp_path, read):
    table, store = tmp_path / "table.csv", Store(tmp_path / "store", remembered(tmp_path))
    table.write_text("one")
    seal([table])
    key = store.put({"stage": "none"}, lambda path: path.write_text("whole"))
    memory = remembered(tmp_path)
    store = Store(tmp_path / "store", memory)
    assert drop_damaged_files(tmp_path, read=memory) == []
    payload = store.get(key)
    memory.save()
    memory = remembered(tmp_path)
    store = Store(tmp_path / "store", memory)
    assert store.get(key) == payload and drop_damaged_files(tmp_path, read=memory) == []
    assert read.count(payload) == read.count(table) == 1
    table.write_text("once")
    payload.write_text("broken")
    assert drop_damaged_files(tmp_path, read=memory) == [table]
    assert key not in store


def test_a_wrong_memory_condemns_nothing(tmp_path, read):
    table, store = tmp_path / "table.csv", Store(tmp_path / "store")
    table.write_text("one")
    seal([table])
    key = store.put({"stage": "none"}, lambda path: path.write_text("whole"))
    memory, payload = remembered(tmp_path), store.get(key)
    memory(table), memory(payload)
    memory.save()
    file = tmp_path / ".checksums.json"
    file.write_text(file.read_text().replace(checksum(table), "0" * 64))
    file.write_text(file.read_text().replace(checksum(payload), "1" * 64))
    memory = remembered(tmp_path)
    assert memory(table) == "0" * 64 and memory(payload) == "1" * 64
    assert drop_damaged_files(tmp_path, read=memory) == [] and table.exists()
    assert key in Store(tmp_path / "store", memory)


def test_an_entry_that_rots_unseen_is_gone_once_it_is_read(tmp_path, read):
    """The memory takes the payload for whole; after the job that reads it, nobody does."""
    store = Store(tmp_path / "store")
    key = store.put({"stage": "none"}, lambda path: path.write_text("whole"))
    payload = store.get(key)
    payload.write_text("rotten")
    vouching = Store(tmp_path / "store", lambda _: whole)
    whole = json.loads((tmp_path / "store" / f"{key}.json").read_text())["sha256"]
    assert key in vouching
    with pytest.raises(KeyError):
        store.get(key)
    assert key not in vouching


def test_a_memory_that_cannot_be_written_or_read_is_done_without(tmp_path, read):
    table = tmp_path / "table.csv"
    table.write_text("one")
    (tmp_path / ".checksums.json").mkdir()
    memory = remembered(tmp_path)
    assert memory(table) == checksum(table)
    memory.save()
