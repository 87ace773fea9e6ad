"""What a result depends on is what is imported, and of what registers itself what an arm uses."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import prunesid
from prunesid import families
from prunesid.core.imports import closure, files_digest
from prunesid.methods.registry import PACKAGES
from prunesid.pocket.benchmarks import render
from prunesid.study.config.arm import VANILLA, make_arm
from prunesid.study.provenance.code import STAGES, code_of, modules_of, stage_files
from prunesid.study.provenance.store import Store
from prunesid.study.stages.answers import answer_benchmark
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import encode_part
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.source import Runtime, Source

# What can change a result and was once overlooked, by stage.
CHANGING = {
    "features": (
        "images.media core.record images.records core.numerics study.stages.features "
        "study.stages.shard study.stages.source families.llava families.towers.clip"
    ),
    "select": (
        "methods.features methods.features.prunesid.groupings methods.features.prunesid.scores "
        "core.parameters core.registry core.record images.records study.stages.selection "
        "methods.features.prunesid.psca methods.features.prunesid.nms "
        "methods.features.prunesid.quotas"
    ),
    "encode": (
        "images.media images.records methods.encoder methods.encoder.merging methods.encoder.tome "
        "study.stages.encoding families.towers.clip_pass"
    ),
    "answer": (
        "core.record study.stages.answers study.stages.arm_answers generate.engine "
        "study.files.kept families.llava"
    ),
    "score": "study.stages.scores core.questions lmms.scoring lmms.grades lmms.tasks.utils",
    "compare": (
        "study.analysis.arm_facts study.analysis.comparison study.analysis.pairs "
        "study.analysis.strata study.analysis.statistics"
    ),
}
STRANGE = (
    "study.report",
    "study.tracking",
    "study.planning",
    "study.analysis",
    "study.config.",
    "study.provenance.code",
    "generate.pruned",
)
ARMS = {"encode": {"method": "tome"}, "select": {"method": "prunesid"}}


def modules_read(stage: str, *settings: dict) -> set[str]:
    return set(stage_files(stage, [make_arm(setting) for setting in settings], "pocket"))


@pytest.mark.parametrize("stage", CHANGING)
def test_a_stage_depends_on_what_can_change_its_results(stage):
    found = modules_read(stage, ARMS.get(stage, {"method": "prunesid"}))
    assert {f"prunesid.{name}" for name in CHANGING[stage].split()} <= found


@pytest.mark.parametrize("stage", ["images", "features", "encode", "select", "answer", "score"])
def test_planning_and_pictures_change_no_result(stage):
    settings = ({"method": m} for m in ("prunesid", "tome", "fastv"))
    strange = tuple(f"prunesid.{name}" for name in STRANGE)
    assert not [name for name in modules_read(stage, *settings) if name.startswith(strange)]


def test_a_method_counts_for_the_arms_that_use_it_alone():
    grid, late = (
        modules_read("select", {"method": "grid"}),
        modules_read("answer", {"method": "fastv"}),
    )
    assert {"prunesid.methods.features", "prunesid.methods.features.grid"} < grid
    assert not grid & {
        "prunesid.methods.features.prunesid.method",
        "prunesid.methods.features.prunesid.psca",
        "prunesid.methods.features.prunesid.groupings.psca",
    }
    assert "prunesid.methods.features.prunesid.groupings.kmeans" in modules_read(
        "select", {"grouping": "kmeans"}
    )
    assert "prunesid.methods.features.prunesid.groupings.kmeans" not in modules_read(
        "select", {"grouping": "random"}
    )
    assert {
        "prunesid.methods.decoder",
        "prunesid.generate.decoder_pass",
        "prunesid.methods.decoder.fastv",
    } < late
    assert "prunesid.methods.decoder.dart" not in late
    early = modules_read("answer", {"method": "grid"}, {"method": "tome"})
    assert early == set(stage_files("answer", [VANILLA], "pocket"))
    assert not [
        name for name in early if "late" in name or name.startswith("prunesid.methods.features")
    ]


def test_the_code_of_arms_together_is_that_of_each():
    settings = [{"method": m} for m in ("prunesid", "grid", "tome", "fastv")]
    for stage in STAGES:
        each = [modules_read(stage, setting) for setting in settings]
        assert modules_read(stage, *settings) == set.union(*each)


def test_a_family_counts_for_its_models_alone(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "qwen2_vl"}')
    found = stage_files("features", (), str(tmp_path))
    assert "prunesid.families.qwen2_vl" in found and "prunesid.families.llava" not in found
    assert "prunesid.families.llava" in modules_read("features")
    (tmp_path / "config.json").write_text('{"model_type": "qwen9"}')
    with pytest.raises(ValueError, match="Unknown model family 'qwen9'"):
        stage_files("features", (), str(tmp_path))


@pytest.mark.parametrize("stage", ["render", "notebook"])
def test_the_templates_of_pages_count_where_pages_are_written(stage):
    names = ("page.html", "notebook.html", "cells.html", "notebook.css", "tables.css")
    assert {f"prunesid.study.report.templates.{name}" for name in names} <= modules_read(stage)


def test_unknown_stages_are_told_the_choices():
    with pytest.raises(ValueError, match="Did you mean 'select'"):
        stage_files("selec")


def executed(run: Callable[[], object]) -> set[Path]:
    """The files whose functions run."""
    found = set()

    def note(frame: Any, event: str, argument: object) -> None:
        if event == "call" and frame.f_code.co_name != "<module>":
            found.add(frame.f_code.co_filename)

    sys.setprofile(note)
    try:
        run()
    finally:
        sys.setprofile(None)
    return {Path(name) for name in found}


# Names of arms, stages and files; what is said there reaches a result as a value of its key.
PLANNING = (
    "prunesid.core.imports",
    "prunesid.study.",
    "prunesid.families.declared.",
    "prunesid.pocket.rendered",
)


def test_what_runs_is_known_to_be_run(tmp_path):
    methods = ("prunesid", "visionzip", "tome", "fastv")
    arms = [VANILLA, *(make_arm({"method": method, "budget": 320}) for method in methods)]
    render("pocket_mme", tmp_path / "mme.parquet", 2)
    source, runtime = (
        Source("pocket_mme", tmp_path / "mme.parquet"),
        Runtime("pocket", batch_size=2),
    )
    store = Store(tmp_path / "store")
    features, encoded, kept, answers, scores = (
        tmp_path / name for name in ("features", "encoded", "kept", "answers", "scores.parquet")
    )
    metric, needs = "mme_perception_score", needs_of(arms)
    runs = {
        "features": lambda: encode_part(
            "pocket_mme", source, runtime, needs, features=features, information=tmp_path / "phi"
        ),
        "encode": lambda: encode_arms(source, runtime, features, arms, store, encoded),
        "select": lambda: select_arms(features, arms, store, kept, encoded=encoded),
        "answer": lambda: answer_benchmark(source, runtime, features, kept, arms, store, answers),
        "score": lambda: score_benchmark(source, "pocket_mme", metric, [answers], store, scores),
    }
    # The registry of families imports all of them when it is first asked.
    families.families()
    library = Path(prunesid.__file__).parent
    for stage, run in runs.items():
        ran = {path for path in executed(run) if path.is_relative_to(library)}
        names = {".".join(("prunesid", *p.relative_to(library).with_suffix("").parts)) for p in ran}
        modules_read = stage_files(stage, arms, "pocket")
        registries = set(PACKAGES.values())
        unknown = (
            {name.removesuffix(".__init__") for name in names} - set(modules_read) - registries
        )
        assert len(ran) > 5
        assert not {name for name in unknown if not name.startswith(PLANNING)}, stage


@pytest.fixture
def package(tmp_path, monkeypatch):
    """Writes modules of a package that nothing has imported."""
    monkeypatch.syspath_prepend(tmp_path)

    def write(**sources: str) -> None:
        for name, source in sources.items():
            path = tmp_path / "some_package" / (name.replace("__in__", "/") + ".py")
            path.parent.mkdir(exist_ok=True, parents=True)
            path.write_text(textwrap.dedent(source))

    write(__init__="from .given import thing, other as another\n", given="", sub__in____init__="")
    return write


def test_imports_of_every_kind_are_followed_and_those_of_type_checkers_are_not(package):
    package(
        root="""
        from typing import TYPE_CHECKING
        import some_package.plain, json
        from some_package.named import one, two
        from . import beside
        from .sub import below
        from some_package import thing
        if TYPE_CHECKING:
            from some_package import typed
        else:
            from some_package import untyped

        def late():
            from some_package.inside import one
        """,
        plain="", named="", beside="from some_package import root", sub__in__below="", typed="",
        untyped="", inside="raise AssertionError('nothing is executed')", unused="",
    )  # fmt: skip
    found = closure(["some_package.root"])
    expected = "root plain named beside sub.below given untyped inside"
    assert set(found) == {f"some_package.{name}" for name in expected.split()}
    assert "some_package.inside" not in sys.modules


def test_what_stands_apart_counts_as_a_root_alone(package):
    package(root="from .sub import member, anything", sub__in__member="", sub__in__other="")
    apart = ["some_package.sub"]
    assert set(closure(["some_package.root"], apart)) == {
        "some_package.root",
        "some_package.sub.member",
    }
    assert set(closure(apart, apart)) == {"some_package.sub"}
    members = {"some_package.sub", "some_package.sub.member", "some_package.sub.other"}
    assert set(closure(apart)) == members
    with pytest.raises(ValueError, match=r"some_package\.none has no source file"):
        closure(["some_package.none"])


def test_the_digest_is_of_names_and_contents(package):
    package(root="from . import part", part="x = 1\n")
    before = files_digest(closure(["some_package.root"]))
    assert files_digest(closure(["some_package.root"])) == before
    package(part="x = 22\n")
    assert files_digest(closure(["some_package.root"])) != before
    assert code_of("images") == code_of("images") != code_of("score")


def test_plain_arms_have_no_modules_and_others_their_own():
    assert modules_of(VANILLA) == []
    assert modules_of(make_arm({"grouping": "kmeans"})) == [
        "prunesid.methods.features.prunesid.method",
        "prunesid.methods.features.prunesid.groupings.kmeans",
        "prunesid.methods.features.prunesid.scores.abs_v",
    ]
