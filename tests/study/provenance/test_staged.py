"""A store in folders that rules declare: all are read, one is written."""

from __future__ import annotations

import pytest

from prunesid.study.provenance.staged import StagedStore
from prunesid.study.provenance.store import Store


def put(store: Store, arm: str, content: str) -> str:
    return store.put({"arm": arm}, lambda path: path.write_text(content))


@pytest.fixture
def folders(tmp_path):
    return [tmp_path / name for name in ("answers", "selections", "encoded")]


def test_entries_of_all_folders_are_found(folders):
    keys = [put(Store(folder), folder.name, folder.name) for folder in folders]
    store = StagedStore(folders)
    assert [store.get(key).read_text() for key in keys] == [folder.name for folder in folders]
    assert all(key in store for key in keys) and "0123" not in store
    with pytest.raises(KeyError, match="0123"):
        store.get("0123")


def test_new_entries_go_to_the_first_folder_alone(folders):
    key = put(StagedStore(folders), "new", "new")
    assert [key in Store(folder) for folder in folders] == [True, False, False]


def test_an_entry_that_is_damaged_in_one_folder_is_found_in_another(folders):
    key = put(Store(folders[0]), "same", "same")
    put(Store(folders[2]), "same", "same")
    Store(folders[0]).get(key).write_text("else")
    assert StagedStore(folders).get(key).parent == folders[2]
