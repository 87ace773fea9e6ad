"""The store: whole entries or none, whoever writes and whatever breaks."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from prunesid.study.provenance.store import Store

MATERIAL = {"stage": "answer", "arm": {"budget": 64}, "seed": 0}


def text(content: str):
    return lambda path: path.write_text(content)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "store")


def test_what_is_put_is_found_again(store):
    key = store.put(MATERIAL, text("yes"), suffix=".txt")
    assert key == Store.key(MATERIAL) and key in store
    assert store.get(key).read_text() == "yes" and store.get(key).suffix == ".txt"
    assert Store(store.root).material(key) == MATERIAL


def test_the_key_is_the_content_of_the_material():
    assert Store.key({"a": 1, "b": 2}) == Store.key({"b": 2, "a": 1})
    assert Store.key(MATERIAL) != Store.key({**MATERIAL, "seed": 1})


def test_a_missing_entry_is_an_error(store):
    assert "0123" not in store and store.find("0123") is None
    with pytest.raises(KeyError, match="0123 is not in the store"):
        store.get("0123")
    with pytest.raises(KeyError):
        store.material("0123")


def test_nothing_remains_of_a_writer_that_fails(store):
    def fail(path: Path) -> None:
        path.write_text("half")
        raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError):
        store.put(MATERIAL, fail)
    assert Store.key(MATERIAL) not in store and not list(store.root.iterdir())


@pytest.mark.parametrize("damage", ["", "ye", "no!"])
def test_a_damaged_payload_does_not_exist_and_can_be_written_again(store, damage):
    key = store.put(MATERIAL, text("yes"))
    store.get(key).write_text(damage)
    assert key not in store
    store.put(MATERIAL, text("yes"))
    assert store.get(key).read_text() == "yes"


def test_a_damaged_or_orphaned_sidecar_does_not_exist(store):
    key = store.put(MATERIAL, text("yes"))
    sidecar = store.root / f"{key}.json"
    whole = sidecar.read_text()
    for broken in (whole[:20], "[]", "{}", json.dumps({"payload": "none", "sha256": ""})):
        sidecar.write_text(broken)
        assert key not in store
    sidecar.write_text(whole)
    assert key in store
    store.get(key).unlink()
    assert key not in store


def test_a_payload_without_its_sidecar_does_not_exist(store):
    key = store.put(MATERIAL, text("yes"))
    (store.root / f"{key}.json").unlink()
    assert key not in store


def test_writers_of_one_key_do_not_mix_their_files(store):
    def write(number: int) -> None:
        store.put(MATERIAL, text(f"{number}" * 5000))
        found = store.find(Store.key(MATERIAL))
        assert found is not None and len(set(found.read_text())) == 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(write, range(10), timeout=60))
    assert Store.key(MATERIAL) in store
    assert not [path for path in store.root.iterdir() if path.name.startswith(".")]
