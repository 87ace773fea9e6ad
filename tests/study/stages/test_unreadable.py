"""What cannot be read is an error, or is left out for all arms alike where a study says so."""

from __future__ import annotations

import json
import shutil

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from builders.pocket_data import truncate_images
from builders.video_llava_models import save_tiny_video_llava
from builders.videos import write_clips
from datasets import Dataset
from PIL import Image, ImageFile

from prunesid.core.questions import Question
from prunesid.generate import batches
from prunesid.images.media import Unreadable, media_of
from prunesid.images.medium import Medium
from prunesid.lmms.tasks import image_names, load_task
from prunesid.pocket.benchmarks import render
from prunesid.study.analysis.comparison import (
    AVERAGE,
    LEFT,
    compare,
    read_comparison,
    write_csv,
)
from prunesid.study.analysis.measurement import read_scores
from prunesid.study.analysis.results import Results
from prunesid.study.config.study import parse_study
from prunesid.study.files.features import read_head
from prunesid.study.layout import Layout
from prunesid.study.provenance.store import Store
from prunesid.study.report.closing import closing
from prunesid.study.report.figures import Subject
from prunesid.study.report.table import build_table, write_table
from prunesid.study.stages.answers import _with_gaps, answer_benchmark
from prunesid.study.stages.encoding import encode_arms
from prunesid.study.stages.features import encode_part, extract
from prunesid.study.stages.information import write_information
from prunesid.study.stages.measure import measure_arms
from prunesid.study.stages.needs import needs_of
from prunesid.study.stages.questions import write_questions
from prunesid.study.stages.scores import score_benchmark
from prunesid.study.stages.selection import select_arms
from prunesid.study.stages.shard import shards
from prunesid.study.stages.source import Runtime, Source, runtime_of

ABLATION = """
title: A few arms
vary:
  - {label: PruneSID}
  - {method: cdpruner, label: CDPruner}
  - {method: tome, label: ToMe}
  - {method: fastv, label: FastV}
across: {budget: [192]}
seeds: 1
reference: {}
latency: {questions: 4, batches: [1]}
"""
IMAGES = 6
# The fourth of six; the first cannot be left out, since lmms-eval loads a task by it.
BROKEN = "pocket_mme-00003"


def study_of(folder, **fields):
    (folder / "ablations").mkdir(parents=True, exist_ok=True)
    (folder / "ablations" / "few.yaml").write_text(ABLATION)
    document = {
        "title": "Broken", "benchmarks": ["pocket_mme"], "ablations": ["few"], "batch_size": 2,
        "bootstrap": {"resamples": 200}, "results": str(folder), "skip_unreadable": True,
    }  # fmt: skip
    return parse_study(document | fields, folder=folder)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    path = tmp_path_factory.mktemp("whole") / "mme.parquet"
    render("pocket_mme", path, IMAGES)
    return path


@pytest.fixture(scope="module")
def damaged(whole, tmp_path_factory):
    path = tmp_path_factory.mktemp("damaged") / "mme.parquet"
    shutil.copy(whole, path)
    truncate_images(path, {BROKEN})
    return path


def run(folder, data, **fields):
    """Every stage up to the scores -> the study, and the answers' tables of keys."""
    study = study_of(folder, **fields)
    layout, store, parts = Layout.of(study), Store(folder / "store"), shards(study.shards)
    source, runtime = Source("pocket_mme", data), runtime_of(study)
    arms, benchmark = study.arms_of("pocket_mme"), study.benchmarks[0]
    heads = [layout.head("pocket_mme", part) for part in parts]
    answers = [layout.keys("answers", "pocket_mme", part) for part in parts]
    for part, head, given in zip(parts, heads, answers, strict=True):
        own, asked = layout.features("pocket_mme", part), layout.questions("pocket_mme", part)
        encoded, kept = (head.with_name(f"{name}.json") for name in ("encoded", "selections"))
        encode_part(
            "pocket_mme", source, runtime, needs_of(arms), part, features=own, head=head,
            information=layout.scores_of_images("pocket_mme", part),
            skip_unreadable=study.skip_unreadable,
        )  # fmt: skip
        encode_arms(source, runtime, own, arms, store, encoded)
        write_questions(source, runtime, arms, own, asked, part)
        select_arms(own, arms, store, kept, None, encoded, asked)
        answer_benchmark(source, runtime, own, kept, arms, store, given, part, asked)
    write_information(
        [layout.scores_of_images("pocket_mme", part) for part in parts], layout.information
    )
    scores = layout.scores("pocket_mme")
    score_benchmark(source, "pocket_mme", benchmark.metric, answers, store, scores, heads)
    return study, answers


@pytest.fixture(scope="module")
def skipping(damaged, tmp_path_factory):
    return run(tmp_path_factory.mktemp("skipping"), damaged)


@pytest.fixture(scope="module")
def undisturbed(whole, tmp_path_factory):
    return run(tmp_path_factory.mktemp("undisturbed"), whole)


def table_of(study):
    return pd.read_parquet(Layout.of(study).scores("pocket_mme"))


def pages(study, folder):
    """The ablation's table and method page as their files, by suffix, and its comparison."""
    layout, ablation = Layout.of(study), study.ablations[0]
    scores = read_scores([layout.scores("pocket_mme")])
    write_csv(compare(scores, ablation, study.benchmarks, study.bootstrap), folder / "all.csv")
    comparison = read_comparison(folder / "all.csv")
    subject = Subject(comparison, ablation, study.benchmarks, study.bootstrap)
    paths = [folder / f"table.{suffix}" for suffix in ("html", "md", "csv")]
    write_table(build_table(subject), paths)
    return {path.suffix: path.read_text() for path in paths}, comparison, subject


def test_it_is_an_error_that_names_question_and_row_and_what_to_do(damaged, tmp_path):
    study, output = study_of(tmp_path), tmp_path / "features.safetensors"
    row = next(
        number for number, own in enumerate(pq.read_table(damaged).to_pylist())
        if own["image_id"] == BROKEN
    )  # fmt: skip
    with pytest.raises(
        ValueError,
        match=rf"^question {row} of pocket_mme: row {row} of its data cannot be read: .*truncated.*"
        r"Mend it, or leave its \d+ questions out for all arms by `skip_unreadable: true`",
    ):
        extract(Source("pocket_mme", damaged), runtime_of(study), needs_of(study.arms), output)
    assert not output.exists()
    assert ImageFile.LOAD_TRUNCATED_IMAGES, "lmms-eval's own way for others is left as it was"


def test_the_other_images_have_the_scores_that_they_have_without_it(skipping, undisturbed):
    ours, theirs = table_of(skipping[0]), table_of(undisturbed[0])
    assert set(ours["arm"]) == {arm.name for arm in skipping[0].arms}
    rest = theirs[theirs["image_id"] != BROKEN].reset_index(drop=True)
    assert 0 < len(rest) < len(theirs)
    pd.testing.assert_frame_equal(ours, rest, check_like=False)
    assert not theirs.attrs and set(ours.attrs) == {"left_out"}
    lost = int((theirs["arm"] == "vanilla").sum() - (ours["arm"] == "vanilla").sum())
    assert list(ours.attrs["left_out"]) == [lost, 1]
    head = read_head(Layout.of(skipping[0]).head("pocket_mme", "1-of-1"))
    assert list(head.skipped) == [BROKEN] and head.skipped[BROKEN].questions == lost
    assert "cannot be read" in head.skipped[BROKEN].reason
    assert not read_head(Layout.of(undisturbed[0]).head("pocket_mme", "1-of-1")).skipped


def test_lmms_evals_own_metrics_are_those_of_a_benchmark_without_it(skipping, whole, tmp_path):
    rows = pq.read_table(whole)
    kept = [own["image_id"] != BROKEN for own in rows.select(["image_id"]).to_pylist()]
    pq.write_table(rows.filter(pa.array(kept)), tmp_path / "mme.parquet")
    study, _ = run(tmp_path / "run", tmp_path / "mme.parquet")
    ours, theirs = (
        json.loads(Layout.of(own).metrics("pocket_mme").read_text()) for own in (skipping[0], study)
    )
    assert ours == theirs


def test_the_number_of_parts_changes_nothing(skipping, damaged, tmp_path, monkeypatch):
    # A batch of two is a block, so that the gap would move every later image into another one.
    monkeypatch.setattr(batches, "BATCHES", 1)
    one, _ = run(tmp_path / "1", damaged)
    three, _ = run(tmp_path / "3", damaged, shards=3)
    pd.testing.assert_frame_equal(table_of(one), table_of(three))
    assert table_of(one).attrs == table_of(three).attrs == table_of(skipping[0]).attrs


def test_every_table_says_how_many_are_left_out_and_none_where_none_are(
    skipping, undisturbed, tmp_path
):
    (lost, _) = table_of(skipping[0]).attrs["left_out"]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    files, comparison, subject = pages(skipping[0], tmp_path / "a")
    said = f"{lost} more on 1 that cannot be read are left out"
    assert subject.left_out == {"pocket_mme": said} and said in subject.sample
    assert all(said in files[suffix] for suffix in (".html", ".md"))
    assert (comparison[list(LEFT)].to_numpy() == [lost, 1]).all()
    assert set(comparison["benchmark"]) == {"pocket_mme", AVERAGE}
    (line,) = (own for own in closing([skipping[0]]).splitlines() if own.startswith("Left out of "))
    assert f"{lost} questions on 1 that cannot be read, for example: question" in line
    others, plain, clean = pages(undisturbed[0], tmp_path / "b")
    assert not any("left out" in text for text in others.values())
    assert not set(LEFT) & set(plain.columns) and "left out" not in clean.sample
    assert "Left out" not in closing([undisturbed[0]])


def test_a_readers_first_numbers_say_it(skipping, undisturbed):
    def said(study):
        scores = read_scores([Layout.of(study).scores("pocket_mme")])
        return Results(scores, pd.DataFrame(), pd.DataFrame()).left_out

    (lost, _) = table_of(skipping[0]).attrs["left_out"]
    assert said(skipping[0]) == f" ({lost} more on 1 that cannot be read are left out)"
    assert said(undisturbed[0]) == ""


def test_images_keep_their_places_among_those_that_share_a_batch():
    medium = Medium("image", (0,), {})
    images = ["a", "b", "c", "d"]
    whole = _with_gaps(dict.fromkeys(images, (medium,)), images)
    part = _with_gaps(dict.fromkeys("acd", (medium,)), images)
    assert part["b"] == () and list(part) == list(whole) == images
    # Two questions on a, one on c and none on what is left out.
    owners = {"a\n1": "a", "a\n2": "a", "c\n1": "c", "d\n1": "d"}
    rows = _with_gaps(dict.fromkeys(owners, (medium,)), images, owners)
    asked = [Question(name, image, "", input=name) for name, image in owners.items()]
    numbers = batches.image_numbers(rows, asked)
    assert [numbers[name] for name in owners] == [0, 0, 2, 3]


def test_the_clock_takes_what_can_be_read(skipping, damaged, tmp_path):
    study, answers = skipping
    ablation, output = study.ablations[0], tmp_path / "timings.csv"
    measure_arms(
        Source("pocket_mme", damaged), runtime_of(study), ablation.clocked_arms[:1],
        ablation.latency, {}, answers, Store(study.results / "store"), output,
    )  # fmt: skip
    assert len(pd.read_csv(output)) == 4


def test_nothing_at_all_to_read_is_an_error(whole, tmp_path):
    data = tmp_path / "mme.parquet"
    shutil.copy(whole, data)
    truncate_images(data, {f"pocket_mme-{n:05}" for n in range(IMAGES)})
    with pytest.raises(ValueError, match="pocket_mme: none of its 6 images can be read"):
        run(tmp_path, data)


def test_a_first_row_that_is_no_image_is_told(whole, tmp_path):
    table = pq.read_table(whole)
    rows = table.to_pylist()
    rows[0]["image"]["bytes"] = b"no image"
    pq.write_table(pa.Table.from_pylist(rows, schema=table.schema), tmp_path / "mme.parquet")
    with pytest.raises(ValueError, match="the first row of its data cannot be read"):
        load_task("pocket_mme", data=tmp_path / "mme.parquet")


@pytest.fixture
def clips(tmp_path):
    """Two clips, the second of which is cut off, and a tiny Video-LLaVA."""
    data = write_clips(tmp_path / "clips")
    broken = tmp_path / "clips" / "videos" / "second.mp4"
    broken.write_bytes(broken.read_bytes()[:200])
    return Source("msvd_qa", data), broken


def test_a_broken_video_names_its_file_and_is_left_out(clips, tiny_llava, tmp_path):
    source, broken = clips
    save_tiny_video_llava(tmp_path / "model", tiny_llava)
    runtime, output = Runtime(str(tmp_path / "model"), batch_size=2), tmp_path / "features"
    with pytest.raises(ValueError, match=rf"^question 2 of msvd_qa: video {broken} .*Mend it, or"):
        extract(source, runtime, needs_of([]), output)
    extract(source, runtime, needs_of([]), output, skip_unreadable=True)
    head = read_head(output)
    (left,) = head.skipped.values()
    assert len(head.inputs) == 1 and left.questions == 2 and str(broken) in left.reason


def test_images_that_are_named_by_content_have_names_of_their_own(tmp_path):
    picture = Image.new("RGB", (8, 8))
    picture.save(tmp_path / "good.png")
    (tmp_path / "bad.png").write_bytes((tmp_path / "good.png").read_bytes()[:40])
    docs = Dataset.from_dict({"path": ["good.png", "bad.png", "bad.png", "gone.png"]})
    names = image_names(docs, range(4), lambda doc: [Image.open(tmp_path / str(doc["path"]))])
    assert names[1:] == ["unreadable-1", "unreadable-2", "unreadable-3"]
    assert not names[0].startswith("unreadable")


def test_an_opened_image_is_read_at_once(tmp_path):
    picture = Image.effect_noise((64, 64), 50)
    picture.save(tmp_path / "cut.png")
    content = (tmp_path / "cut.png").read_bytes()
    (tmp_path / "cut.png").write_bytes(content[: len(content) // 2])
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        with pytest.raises(Unreadable, match=r"image \S+cut.png cannot be read"):
            media_of([Image.open(tmp_path / "cut.png")])
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before
