"""Seals: damage to what a job left is found, whatever the format of the file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prunesid.study.provenance.seals import (
    drop_damaged_files,
    drop_damaged_outputs,
    is_intact,
    seal,
    seal_again,
)


def written(folder: Path) -> list[Path]:
    """The outputs of a job: files of two folders, and a folder."""
    outputs = [folder / "part" / "head.json", folder / "table.parquet", folder / "pages"]
    outputs[0].parent.mkdir(parents=True)
    outputs[0].write_bytes(b"{}")
    outputs[1].write_bytes(bytes(range(256)))
    outputs[2].mkdir()
    (outputs[2] / "one.html").write_text("<p>one</p>")
    seal(outputs)
    return outputs


def flip(path: Path, place: int, bit: int) -> None:
    content = bytearray(path.read_bytes())
    content[place % len(content)] ^= 1 << bit
    path.write_bytes(content)


@pytest.fixture
def outputs(tmp_path):
    return written(tmp_path)


def test_what_is_whole_stays(outputs, tmp_path):
    # Snakemake marks the time of a folder inside it.
    (outputs[2] / ".snakemake_timestamp").touch()
    assert drop_damaged_files(tmp_path) == []
    assert is_intact(outputs[0]) and all(path.exists() for path in outputs)


def test_a_copy_and_a_moved_folder_are_whole(outputs, tmp_path):
    shutil.copytree(tmp_path / "part", tmp_path / "copy" / "part")
    for name in ("table.parquet", "pages"):
        shutil.move(tmp_path / name, tmp_path / "copy" / name)
    assert drop_damaged_files(tmp_path / "copy") == []


def test_a_file_that_another_job_makes_now_is_dropped_once(tmp_path):
    scores, costs = tmp_path / "scores.parquet", tmp_path / "costs.csv"
    costs.write_text("of a job of its own")
    seal([costs])
    for path in (scores, costs):
        path.write_text("of one job")
    seal([scores, costs])
    assert drop_damaged_files(tmp_path) == [costs]
    costs.write_text("of one job")
    seal([scores, costs])
    assert drop_damaged_files(tmp_path) == []


def test_what_lies_beside_a_dropped_file_stays_sealed(outputs, tmp_path):
    flip(outputs[1], 3, 1)
    assert drop_damaged_files(tmp_path) == [outputs[1]]
    flip(outputs[0], 0, 1)
    assert drop_damaged_files(tmp_path) == [outputs[0]]
    assert drop_damaged_files(tmp_path) == [] and outputs[2].exists()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(number=st.integers(0, 2), place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_any_flipped_bit_is_found(tmp_path_factory, number, place, bit):
    folder = tmp_path_factory.mktemp("results")
    outputs = written(folder)
    damaged = outputs[number]
    flip(damaged / "one.html" if damaged.is_dir() else damaged, place, bit)
    assert is_intact(outputs[0]) == (number != 0)
    assert drop_damaged_files(folder) == [damaged]
    assert [path.exists() for path in outputs] == [path != damaged for path in outputs]
    assert drop_damaged_files(folder) == []


def test_the_outputs_of_one_job_are_looked_at_alone(outputs, tmp_path):
    others = written(tmp_path / "other")
    for path in (outputs[1], others[1]):
        flip(path, 3, 1)
    assert drop_damaged_outputs(outputs[0]) == [outputs[1]]
    assert others[1].exists()


@settings(derandomize=True, deadline=None, max_examples=60)
@given(place=st.integers(0, 10**6), bit=st.integers(0, 7))
def test_a_damaged_seal_vouches_for_nothing(tmp_path_factory, place, bit):
    folder = tmp_path_factory.mktemp("results")
    outputs = written(folder)
    (sealed,) = folder.rglob(".*.seal")
    whole = sealed.read_text()
    flip(sealed, place, bit)
    try:
        # A bit of a seal may matter to no reader of JSON.
        harmless = sealed.read_text().split() == whole.split()
    except UnicodeDecodeError:
        harmless = False
    assert drop_damaged_files(folder) == ([] if harmless else [outputs[0]])


def test_files_that_are_not_read_and_files_without_a_seal_are_left_alone(outputs, tmp_path):
    flip(outputs[0], 0, 0)
    (tmp_path / "own.csv").write_text("of a rule of one's own")
    assert drop_damaged_files(tmp_path, [outputs[0].name]) == []
    outputs[1].unlink()
    assert drop_damaged_files(tmp_path, [outputs[0].name]) == []


def test_a_first_output_that_was_made_again_is_sealed_again(outputs, tmp_path):
    outputs[0].write_text("[]")
    assert not is_intact(outputs[0])
    seal_again(outputs[0])
    assert is_intact(outputs[0])
    flip(outputs[1], 3, 3)
    assert drop_damaged_files(tmp_path) == [outputs[1]]
