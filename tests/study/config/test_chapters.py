"""Studies of several models."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from builders.synthetic_scores import ROOT
from builders.warm_python import WarmPython

from prunesid.methods.registry import METHODS
from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.config.chapters import load_whole, read_whole, rendered_by
from prunesid.study.config.documents import ConfigError
from prunesid.study.config.plugins import forget_plugins
from prunesid.study.config.study import load_study
from prunesid.study.layout import Layout

FIRST = {"title": "First", "benchmarks": ["pocket_pope"], "ablations": ["rivals"], "limit": 8}
OTHER = FIRST | {"title": "Other", "model": "pocket-next", "benchmarks": ["pocket_next_pope"]}
WHOLE = {"title": "Both", "chapters": ["first.yaml", "other.yaml"]}


def plan(path: Path, *targets: str) -> set[str]:
    """The rules that Snakemake would run."""
    done = subprocess.run(
        [
            sys.executable, "-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"),
            "--configfile", path.name, "--cores", "1", "--dry-run", *targets,
        ],
        cwd=path.parent, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return set(re.findall(r"^(\w+) +\d+$", done.stdout + done.stderr, re.MULTILINE))


@pytest.fixture
def write(tmp_path):
    def write(whole=WHOLE, first=FIRST, other=OTHER):
        for name, content in (("whole", whole), ("first", first), ("other", other)):
            (tmp_path / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
        return tmp_path / "whole.yaml"

    return write


def test_every_chapter_is_the_study_in_its_file(write):
    whole = load_whole(write())
    assert whole.title == "Both"
    folder = whole.chapters[0].folder
    assert whole.studies == tuple(load_study(folder / f"{n}.yaml") for n in ("first", "other"))
    assert [chapter.name for chapter in whole.chapters] == ["pocket", "pocket_next"]
    assert Layout.of(whole.studies[1]).model == whole.studies[1].results / "pocket-next"


def test_a_plain_study_is_one_chapter(write):
    path = write().with_name("first.yaml")
    whole = load_whole(path)
    assert whole.studies == (load_study(path),) and whole.title == "First"


def test_fields_beside_the_chapters_count_for_all_of_them_and_given_ones_most(write):
    path = write(WHOLE | {"limit": 3, "seeds": 2, "bootstrap": {"resamples": 200}})
    assert {(s.limit, s.seeds, s.bootstrap.resamples) for s in load_whole(path).studies} == {
        (3, 2, 200)
    }
    assert {s.limit for s in read_whole([path], {"limit": 5}).studies} == {5}


def test_images_are_rendered_by_the_first_chapter_that_asks_them(write):
    both = OTHER | {"benchmarks": ["pocket_pope", "pocket_next_pope"]}
    chapters = load_whole(write(other=both)).chapters
    assert rendered_by(chapters, list(BENCHMARKS)) == {
        "pocket": ["pocket_pope"],
        "pocket_next": ["pocket_next_pope"],
    }


@pytest.mark.parametrize(
    ("whole", "other", "problem"),
    [
        ({"chapters": ["frist.yaml"]}, {}, "chapter 'frist.yaml'. Did you mean 'first.yaml'"),
        (
            {"chapters": "first.yaml"},
            {},
            "'first.yaml' is not of type 'array'. Expected: a list of fi",
        ),
        ({"chapters": ["whole.yaml"]}, {}, "'whole.yaml' is a study of several models, and no cha"),
        ({"title": None}, {}, "title: None is not of type 'string'. Expected: headline"),
        ({"title": ""}, {}, r"whole.yaml:\d+: title: '' should be non-empty"),
        ({"title": "a\nb"}, {}, r"title: 'a\\nb': expected is one line of text"),
        ({}, {"name": "Pocket"}, "named Pocket and pocket, which differ in case, '-'"),
        ({}, {"name": "store"}, r"other.yaml:\d+: name: 'store' cannot be the name of a folder"),
        ({}, {"model": "pocket"}, "have one folder of results, pocket; give one of them another"),
        ({}, {"results": "elsewhere"}, "have different results; name it beside `chapters`"),
        (
            {},
            {"benchmarks": ["pocket_pope"], "limit": 9},
            "share pocket_pope and have different limits",
        ),
        ({"limt": 3}, {}, r"whole.yaml:\d+: Unknown field 'limt'"),
        ({}, {"ablations": ["rivls"]}, r"other.yaml:\d+: ablations: .*'rivals'"),
    ],
)
def test_problems_are_named_with_file_and_choices(write, whole, other, problem):
    with pytest.raises(ConfigError, match=problem):
        load_whole(write(WHOLE | whole, other=OTHER | other))


def test_chapters_whose_rules_would_have_one_name_are_refused(write):
    path = write(first=FIRST | {"name": "a-b"}, other=OTHER | {"name": "a_b"})
    with pytest.raises(ConfigError, match="named a-b and a_b, which differ in case, '-', '.' and"):
        load_whole(path)


@pytest.mark.parametrize("name", ["a_ablation", "a-ablation-of"])
def test_a_chapter_named_as_rules_of_another_is_refused(write, name):
    first, other = FIRST | {"name": "a"}, OTHER | {"name": name}
    said = f"'Other' is named {name}, as rules of 'First' are; give one of them another `name`"
    with pytest.raises(ConfigError, match=re.escape(said)):
        load_whole(write(first=first, other=other))
    assert len(load_whole(write(first=first, other=OTHER | {"name": "a_b"})).chapters) == 2


def test_problems_of_all_chapters_are_listed_at_once(write):
    path = write(first=FIRST | {"shards": 0}, other=OTHER | {"seeds": "many"})
    with pytest.raises(ConfigError) as refused:
        load_whole(path)
    assert [p.split(":")[0].rpartition("/")[2] for p in refused.value.problems] == [
        "first.yaml",
        "other.yaml",
    ]


PLUGIN = """
from prunesid.methods.features import register

@register("{}")
def of_a_chapter(record, budget, draws): ...
"""


@pytest.fixture
def plugged(write, tmp_path):
    """Two chapters whose ablation has a method `mine`, and their plug-ins."""
    for name, method in (("own", "mine"), ("again", "mine"), ("far/own", "other_than_mine")):
        path = tmp_path / f"{name}.py"
        path.parent.mkdir(exist_ok=True)
        path.write_text(PLUGIN.format(method))
    (tmp_path / "ablations").mkdir()
    (tmp_path / "ablations" / "mine.yaml").write_text("title: A\nvary: {method: [grid, mine]}\n")

    def of(first: list[str], other: list[str]) -> Path:
        chapters = ((FIRST, first), (OTHER, other))
        return write(WHOLE, *(c | {"ablations": ["mine"], "plugins": p} for c, p in chapters))

    yield of
    forget_plugins()


def test_chapters_share_a_plug_in_that_both_name(plugged, tmp_path):
    whole = load_whole(plugged(["own.py"], ["./own.py", "far/../own.py"]))
    assert {study.plugins for study in whole.studies} == {(tmp_path / "own.py",)}
    assert METHODS["mine"]


def test_the_plug_ins_of_all_chapters_are_there_once_they_are_read(plugged, tmp_path):
    (tmp_path / "ablations" / "mine.yaml").write_text("title: A\nvary: {method: [grid, pool]}\n")
    load_whole(plugged(["own.py"], []))
    assert METHODS["mine"]


@pytest.mark.parametrize(
    ("first", "other", "problem"),
    [
        (["own.py"], [], r"mine.yaml:2: Unknown method 'mine'"),
        ([], ["own.py"], r"mine.yaml:2: Unknown method 'mine'"),
        (
            ["own.py"],
            ["again.py"],
            r"whole.yaml:2: plugins: .*already is a method named 'mine', in",
        ),
        (["own.py"], ["again.py", "far/own.py"], r"whole.yaml:2: .*two of the name 'own'"),
    ],
)
def test_a_chapter_knows_its_own_plug_ins_alone(plugged, first, other, problem):
    with pytest.raises(ConfigError, match=problem):
        load_whole(plugged(first, other))


def test_a_name_gives_a_second_study_of_a_model_its_own_folder(write):
    whole = load_whole(write(other=FIRST | {"name": "again", "title": "Other"}))
    assert [Layout.of(study).model.name for study in whole.studies] == ["pocket", "again"]


@pytest.mark.slow
def test_a_chapter_is_planned_alone_or_with_all(write):
    # A name that the workflow has itself is as good as another.
    planned = plan(write(first=FIRST | {"name": "config"}, other=OTHER | {"name": "1st"}))
    assert {"config_features", "1st_features", "1st_ablation_rivals"} <= planned
    path = write()
    alone = plan(path, "results/pocket-next/ablations/rivals/table.html")
    assert "pocket_next_ablation_rivals" in alone
    assert not any(name.startswith("pocket_") and "next" not in name for name in alone)


@pytest.mark.slow
def test_chapters_end_in_a_page_on_what_travels_and_one_more_reruns_nothing(write, tmp_path):
    few = {"rivals": {"across": {"budget": [64]}}}
    first = FIRST | {"overrides": few, "device": "cpu", "batch_size": 1, "limit": 2}
    other = OTHER | {"overrides": few, "device": "cpu", "batch_size": 1, "limit": 2}
    path = write(WHOLE | {"chapters": ["first.yaml"]}, first, other)
    scores = Path("results/pocket/pocket_pope/scores.parquet")
    usual = ("-m", "snakemake", "--snakefile", str(ROOT / "Snakefile"), "--cores", "1")

    def run(*targets: object) -> str:
        asked = (*map(str, targets), "--configfile", path.name)
        done = python.run(*usual, *asked, cwd=path.parent)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout + done.stderr

    warm = tmp_path / "warm"
    warm.mkdir()
    with WarmPython(warm, PYTHONPATH=str(ROOT)) as python:
        run(scores)
        before = (tmp_path / scores).stat().st_mtime_ns
        write(WHOLE, first, other)
        said = run("results/travel/travel.html")
    assert (tmp_path / scores).stat().st_mtime_ns == before and "pocket_next_score" in said
    page = (tmp_path / "results" / "travel" / "travel.html").read_text()
    assert all(name in page for name in ("First", "Other", "DivPrune", "VisionZip"))
