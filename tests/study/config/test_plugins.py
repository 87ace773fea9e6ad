"""Plug-ins: found next to the study, known by source, replaced when edited, explained if wrong."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import torch
import yaml

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
    both = [write("one/twin.py", ""), write("other/twin.py", "")]
    found = problems(["one/twin.py", "other/twin.py"], tmp_path)
    assert "two of the name 'twin'" in found and f"{both[0]} and {both[1]}" in found
    assert load_plugins(["one/twin.py", "./one/twin.py"], tmp_path) == (both[0],)


def test_a_taken_name_is_told_with_the_file_that_has_it(write, tmp_path):
    first = write("first_of_two.py", METHOD.format(name="claimed", shift=0))
    write("second_of_two.py", METHOD.format(name="claimed", shift=0))
    found = problems(["first_of_two.py", "second_of_two.py"], tmp_path)
    assert "second_of_two.py, line 7: ValueError: There already is a method" in found
    assert f"named 'claimed', in {first}." in found


# What a plug-in imports is not its own, though it is the first to import it.
IMPORTED = """
import sys
from pathlib import Path
from prunesid.methods.registry import METHODS
from prunesid.study.config.plugins import forget_plugins, load_plugins

load_plugins(["first.py"], Path(sys.argv[1]))
assert "torch" not in sys.modules
forget_plugins()
assert "grid" in METHODS.names() and "borrowed" not in METHODS.names()
"""


def test_loading_one_imports_no_torch_and_takes_nothing_from_the_library(write, tmp_path):
    write(
        "first.py",
        """
        from prunesid.methods.features.grid import grid
        from prunesid.methods.features import register

        register("borrowed")(grid)
        """,
    )
    subprocess.run([sys.executable, "-c", IMPORTED, str(tmp_path)], check=True)


def test_one_that_may_take_seconds_runs_only_in_a_study_without_other_problems(write, tmp_path):
    write("slow.py", "raise RuntimeError('it ran')")
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "mine.yaml").write_text("title: Mine\nvary: [{}]\nfigur: {}\n")
    study = tmp_path / "study.yaml"

    def found(**changes: object) -> str:
        fields = {"title": "T", "benchmarks": ["pocket_mme"], "ablations": ["rivals"]}
        study.write_text(yaml.safe_dump(fields | {"plugins": ["slow.py"]} | changes))
        with pytest.raises(ConfigError) as caught:
            load_study(study)
        return str(caught.value)

    assert "it ran" in found()
    for changes in (
        {"limt": 3}, {"seeds": "many"}, {"plugins": ["slow.py", "slwo.py"]},
        {"benchmarks": ["mee"]}, {"calibration": "mee"}, {"ablations": ["rivls"]},
        {"ablations": ["mine"]}, {"overrides": {"mine": {}}}, {"model": "no/folder/here"},
    ):  # fmt: skip
        assert "1 problem" in (said := found(**changes)) and "it ran" not in said, changes


REGISTERED = """
from prunesid.core.parameters import Param
from prunesid.methods.features import *
from prunesid.methods.features.prunesid.groupings import register as grouping
{}
{}
"""
TAKES_ALL = "def mine(record, budget, draws, **given): ..."


@pytest.mark.parametrize(
    ("how", "what", "problem"),
    [
        ("register", TAKES_ALL, "method <function mine at"),
        ("register('mine', params=['a'])", TAKES_ALL, "`params` is a dict of a Param for each"),
        ("register('mine', params={'a': 3})", TAKES_ALL, "`params` is a dict of a Param for each"),
        ("register('mine', params={'a': Param('x', int)})", TAKES_ALL, "default must be an int"),
        ("register('mine', params={'a': Param(0, int, minimum=1)})", TAKES_ALL, "at least 1, not"),
        ("register('mine', params={'a': Param('x', str, ['y'])})", TAKES_ALL, "Available: y"),
        ("register('mine', params={'a': Param(0, 'int')})", TAKES_ALL, "is a str, int, float or"),
        ("register('mine', needs='keys')", TAKES_ALL, "'keys', which is no Needs"),
        ("register('mine', needs=Needs(keys='yes'))", TAKES_ALL, "Needs.keys is True or False"),
        ("register('mine', needs=Needs(relevance='clip'))", TAKES_ALL, "relevance is a tuple of"),
        ("register('mine', needs=Needs(layers={1}))", TAKES_ALL, "Needs.layers is a frozenset"),
        ("register('mine', random='no')", TAKES_ALL, "'no', which is no bool"),
        ("register('mine', exact=1.0)", TAKES_ALL, "1.0, which is no bool"),
        ("register('mine', macs='a')", TAKES_ALL, "'a', which is no int or None"),
        ("register('mine', complete=1)", TAKES_ALL, "`complete` of method 'mine' gives 1, which"),
        ("register('mine', budget_rule=3)", TAKES_ALL, "`budget_rule` is a BudgetRule, not 3"),
        ("register('mine', budget_rule=BudgetRule(min, {'a': 1}))", TAKES_ALL, "`budget_rule` 'a'"),
        ("register('mine', split=min)", TAKES_ALL, "`split` is a Split, not"),
        ("register('mine', source='a paper')", TAKES_ALL, "`source` is a Source, not"),
        ("register('mine')", "async " + TAKES_ALL, "is a generator or coroutine"),
        ("register('mine')", TAKES_ALL.replace("...", "yield"), "is a generator or coroutine"),
        ("grouping('mine')", "def mine(context): yield", "'mine' is a generator or coroutine"),
        ("grouping('mine')", "def mine(): ...", "grouping 'mine' does not take (context): too"),
    ],
)
def test_what_no_registration_can_say_is_told_with_its_line(write, tmp_path, how, what, problem):
    write("mine.py", REGISTERED.format(f"@{how}", what))
    found = problems(["mine.py"], tmp_path)
    assert "mine.py, line 5: ValueError: " in found and problem in found


@pytest.mark.parametrize(
    ("how", "problem"),
    [
        ("complete=lambda given: None", "`complete` of method 'mine' gives None, which is no dict"),
        ("complete=lambda given: {}", "gives nothing; its parameters are a"),
        ("needs=lambda given: 'keys'", "`needs` of method 'mine' gives 'keys', which is no Needs"),
        ("needs=lambda given: given['b']", "`needs` of method 'mine' fails: KeyError: 'b'"),
        ("random=lambda given: 1 / 0", "`random` of method 'mine' fails: ZeroDivisionError"),
    ],
)
def test_what_a_registered_function_gives_is_told_with_its_ablation(write, tmp_path, how, problem):
    method = f"register('mine', params={{'a': Param(1, int)}}, {how})"
    write("mine.py", REGISTERED.format(f"@{method}", TAKES_ALL))
    ablation = write("ablations/mine.yaml", "title: Mine\nvary: {method: [mine]}\n")
    study = tmp_path / "study.yaml"
    study.write_text("{title: T, benchmarks: [pocket_mme], ablations: [mine], plugins: [mine.py]}")
    with pytest.raises(ConfigError) as caught:
        load_study(study)
    assert f"{ablation}:2: " in str(caught.value) and problem in str(caught.value)


def test_a_folder_is_read_file_by_file(write, tmp_path):
    write("folder/__init__.py", "from .part import x\n")
    part = write("folder/part.py", "\nx = 1 / 0\n")
    # As Emacs locks a file that it edits.
    (tmp_path / "folder" / ".#part.py").symlink_to("someone@here.1:2")
    assert problems(["folder"], tmp_path) == (
        f"plugins: {part}, line 2: ZeroDivisionError: division by zero"
    )
    write("folder/part.py", "x = 1\n")
    load_plugins(["folder"], tmp_path)
    write("folder/part.py", "\n\nx = (\n")
    (tmp_path / "folder" / "nothing.py").symlink_to("nowhere")
    (tmp_path / "folder" / "room.py").mkdir()
    (tmp_path / "folder" / "latin.py").write_bytes(b"x = '\xe9'\n")
    found = problems(["folder"], tmp_path).replace(f"plugins: {tmp_path}/folder/", "").split("\n")
    assert [line.partition(": ")[0] for line in found] == [
        "latin.py, line 1",
        "nothing.py cannot be read",
        "part.py, line 3",
        "room.py cannot be read",
    ]


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
