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

from prunesid.pocket.benchmarks import BENCHMARKS
from prunesid.study.config.chapters import load_whole, read_whole, rendered_by
from prunesid.study.config.documents import ConfigError
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
        ({"chapters": "first.yaml"}, {}, "is no list of files"),
        ({"title": None}, {}, "the field 'title' is missing"),
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


def test_problems_of_all_chapters_are_listed_at_once(write):
    path = write(first=FIRST | {"shards": 0}, other=OTHER | {"seeds": "many"})
    with pytest.raises(ConfigError) as refused:
        load_whole(path)
    assert [p.split(":")[0].rpartition("/")[2] for p in refused.value.problems] == [
        "first.yaml",
        "other.yaml",
    ]


def test_a_name_gives_a_second_study_of_a_model_its_own_folder(write):
    whole = load_whole(write(other=FIRST | {"name": "again", "title": "Other"}))
    assert [Layout.of(study).model.name for study in whole.studies] == ["pocket", "again"]


@pytest.mark.slow
def test_a_chapter_is_planned_alone_or_with_all(write):
    path = write()
    planned = plan(path)
    assert {"pocket_features", "pocket_next_features", "pocket_next_ablation_rivals"} <= planned
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
