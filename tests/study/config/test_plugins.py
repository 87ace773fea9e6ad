"""Plug-ins: found next to the study, known by source, replaced when edited, explained if wrong."""

from __future__ import annotations

import textwrap
from pathlib import Path

import pytest
import torch

from prunesid import VisionRecord, compress, list_methods
from prunesid.core.registry import withdraw
from prunesid.study.config.arm import make_arm
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.plugins import load_plugins
from prunesid.study.config.study import load_study
from prunesid.study.provenance.code import code_of, modules_of

METHOD = """
    import torch
    from prunesid.methods.features import register
    from prunesid.core.parameters import Param
    from prunesid.core.record import keep

    @register("{name}", params={{"score": Param("first", str, ("first", "last"))}})
    def method(record, budget, draws, *, score):
        rank = torch.arange(record.num_tokens).roll({shift})
        return keep(record, rank.expand(len(record), -1), budget)
"""
GROUPING = """
    import torch
    from prunesid.methods.features.prunesid.groupings import register

    @register("stripes_of_a_test")
    def stripes(context):
        tokens = context.features.shape[1]
        rows = [torch.arange(tokens) % count for count in context.num_groups]
        return torch.stack(rows)
"""


@pytest.fixture
def write(tmp_path):
    """Writes a plug-in, and takes away what all of them registered."""
    names = []

    def put(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(textwrap.dedent(text))
        names.append(f"prunesid_plugin_{Path(name).parts[0].removesuffix('.py')}")
        return path

    yield put
    for name in names:
        withdraw(name)


def kept(method: str) -> list[int]:
    record = VisionRecord(torch.randn(1, 9, 4))
    return compress(record, method, budget=2).index[0].tolist()


def test_a_plug_in_is_found_beside_the_study(write, tmp_path):
    write("plugged.py", METHOD.format(name="plugged", shift=0))
    write("striped.py", GROUPING)
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "mine.yaml").write_text(
        "title: Mine\nvary: [{method: plugged, score: last}, {grouping: stripes_of_a_test}]\n"
    )
    study = tmp_path / "study.yaml"
    study.write_text(
        "title: T\nbenchmarks: [pocket_mme]\nablations: [mine]\nplugins: [plugged.py, striped.py]\n"
    )
    loaded = load_study(study)
    assert loaded.plugins == (tmp_path / "plugged.py", tmp_path / "striped.py")
    assert [arm.name for arm in loaded.arms] == [
        "vanilla",
        "method-plugged_score-last",
        "grouping-stripes-of-a-test",
    ]
    assert kept("plugged") == [0, 1]


def test_its_source_is_part_of_the_key_and_its_place_is_not(write, tmp_path):
    write("keyed.py", METHOD.format(name="keyed", shift=0))
    load_plugins(["keyed.py"], tmp_path)
    arms = [make_arm({"method": "keyed"})]
    assert modules_of(*arms) == ["prunesid_plugin_keyed"]
    before = code_of("select", arms)
    write("elsewhere/keyed.py", METHOD.format(name="keyed", shift=0))
    load_plugins(["elsewhere/keyed.py"], tmp_path)
    assert code_of("select", arms) == before
    write("elsewhere/keyed.py", METHOD.format(name="keyed", shift=3))
    load_plugins(["elsewhere/keyed.py"], tmp_path)
    assert code_of("select", arms) != before
    assert kept("keyed") == [3, 4]


def test_a_plugged_grouping_brings_its_module_to_the_arm_that_uses_it(write, tmp_path):
    write("striped.py", GROUPING)
    load_plugins(["striped.py"], tmp_path)
    assert "prunesid_plugin_striped" in modules_of(make_arm({"grouping": "stripes_of_a_test"}))
    assert "prunesid_plugin_striped" not in modules_of(make_arm({"grouping": "kmeans"}))


def test_what_is_registered_for_another_module_counts_with_the_plug_in(write, tmp_path):
    write(
        "borrowed.py",
        """
        from prunesid.methods.features import register
        from prunesid.methods.features.grid import grid

        register("borrowed")(grid)
        """,
    )
    load_plugins(["borrowed.py"], tmp_path)
    found = modules_of(make_arm({"method": "borrowed"}))
    assert found == ["prunesid.methods.features.grid", "prunesid_plugin_borrowed"]


def test_a_folder_is_a_plug_in_of_several_files(write, tmp_path):
    write("many/shift.py", "SHIFT = 1\n")
    write("many/__init__.py", METHOD.format(name="many", shift="SHIFT"))
    init = tmp_path / "many" / "__init__.py"
    init.write_text("from .shift import SHIFT\n" + init.read_text())
    load_plugins(["many"], tmp_path)
    assert kept("many") == [1, 2]
    arms = [make_arm({"method": "many"})]
    before = code_of("select", arms)
    write("many/shift.py", "SHIFT = 20 // 10\n")
    load_plugins(["many"], tmp_path)
    assert kept("many") == [2, 3]
    assert code_of("select", arms) != before


def test_loading_again_changes_nothing(write, tmp_path):
    write("again.py", METHOD.format(name="again", shift=0))
    assert load_plugins(["again.py"], tmp_path) == load_plugins(["again.py"], tmp_path)
    assert "again" in list_methods()


def problems(names: list[str], folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_plugins(names, folder)
    return "\n".join(caught.value.problems)


def test_a_missing_file_names_the_nearest(write, tmp_path):
    write("my_method.py", "")
    found = problems(["my_methd.py", "nowhere"], tmp_path)
    assert "Did you mean 'my_method.py'" in found
    assert f"no file {tmp_path / 'nowhere'}" in found


def test_what_is_no_plug_in(tmp_path):
    (tmp_path / "notes.txt").write_text("")
    (tmp_path / "empty").mkdir()
    found = problems(["notes.txt", "empty"], tmp_path)
    assert "is no Python file" in found
    assert "has no __init__.py" in found


def test_two_of_one_name(write, tmp_path):
    write("one/twin.py", "")
    write("other/twin.py", "")
    assert "two of the name 'twin'" in problems(["one/twin.py", "other/twin.py"], tmp_path)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("import no_such_module", "line 3: ModuleNotFoundError: No module named 'no_such_module'"),
        ("x = (", "line 3: SyntaxError"),
        (
            "from prunesid.methods.features import register; register('random')(print)",
            "line 3: ValueError: There already is a method named 'random'",
        ),
    ],
)
def test_a_broken_one_is_explained_with_its_line(write, tmp_path, line, message):
    write("broken.py", f"one = 1\ntwo = 2\n{line}\n")
    assert f"broken.py, {message}" in problems(["broken.py"], tmp_path)


def test_nothing_stays_of_one_that_fails(write, tmp_path):
    text = METHOD.format(name="halfway", shift=0)
    write("halfway.py", text + "    raise RuntimeError('later')\n")
    assert "RuntimeError: later" in problems(["halfway.py"], tmp_path)
    assert "halfway" not in list_methods()
    write("halfway.py", text)
    load_plugins(["halfway.py"], tmp_path)
    assert kept("halfway") == [0, 1]
