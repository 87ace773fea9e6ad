"""The store: whole entries or none, whoever writes and whatever breaks."""

from __future__ import annotations

import json
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.study.provenance.store import Entry, Store

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
    assert list(Store(store.root).entries()) == [Entry(MATERIAL, {})]


def test_the_key_is_the_content_of_the_material():
    assert Store.key({"a": 1, "b": 2}) == Store.key({"b": 2, "a": 1})
    assert Store.key(MATERIAL) != Store.key({**MATERIAL, "seed": 1})


def test_a_missing_entry_is_an_error(store):
    assert "0123" not in store and store.find("0123") is None
    with pytest.raises(KeyError, match="0123 is not in the store"):
        store.get("0123")


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


def test_another_entrys_sidecar_is_none_of_this_key(store):
    one, other = store.put(MATERIAL, text("yes")), store.put({**MATERIAL, "seed": 1}, text("no"))
    shutil.copy(store.root / f"{other}.json", store.root / f"{one}.json")
    assert one not in store and other in store
    assert [entry.material["seed"] for entry in store.entries()] == [1]


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


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@settings(derandomize=True, deadline=None, max_examples=60)
@given(material=st.dictionaries(st.text(), JSON), content=st.binary(), data=st.data())
def test_any_damage_to_any_entry_is_seen_and_mended(tmp_path_factory, material, content, data):
    store = Store(tmp_path_factory.mktemp("store"))
    key = store.put(material, lambda path: path.write_bytes(content), cost={"seconds": 1.5})
    assert store.get(key).read_bytes() == content
    assert list(store.entries()) == [Entry(json.loads(json.dumps(material)), {"seconds": 1.5})]

    files = [store.root / f"{key}.json", store.get(key)]
    damaged = data.draw(st.sampled_from([path for path in files if path.stat().st_size]))
    whole = damaged.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    flipped = whole[place] ^ 1 << data.draw(st.integers(0, 7))
    for broken in (whole[:place], whole[:place] + bytes([flipped]) + whole[place + 1 :]):
        damaged.write_bytes(broken)
        # A bit of a sidecar may matter to no reader of JSON; then the entry is what it was.
        assert key not in store or store.get(key).read_bytes() == content
        assert all(Store.key(entry.material) == key for entry in store.entries())
    assert store.put(material, lambda path: path.write_bytes(content)) == key
    assert store.get(key).read_bytes() == content
