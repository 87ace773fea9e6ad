"""lmms-eval tasks as questions."""

from __future__ import annotations

import numpy as np
import pytest
from builders.pocket_data import BENCHMARKS, rows_of, write_benchmark
from builders.tiny_llava import random_images
from builders.videos import write_video
from datasets import Dataset, Image, List

from prunesid.lmms.tasks import image_names, load_task
from prunesid.pocket.benchmarks import BENCHMARKS as BENCHMARK_OF
from prunesid.pocket.benchmarks import items, render
from prunesid.pocket.video.clips import moments


@pytest.fixture(scope="module")
def tasks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    return {
        name: load_task(name, data=write_benchmark(folder / f"{name}.parquet", name))
        for name in BENCHMARKS
    }


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_questions_are_the_documents(tasks, benchmark):
    questions, rows = tasks[benchmark].questions(), rows_of(benchmark)
    assert [question.id for question in questions] == [str(row) for row in range(len(rows))]
    assert [question.image_id for question in questions] == [row["image_id"] for row in rows]
    assert [question.category for question in questions] == [row["category"] for row in rows]
    assert [question.target for question in questions] == [row["answer"] for row in rows]
    assert {question.gen_kwargs["max_new_tokens"] for question in questions} == {8}
    if benchmark != "pocket_sqa":
        assert [question.context for question in questions] == [row["question"] for row in rows]


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_benchmarks_of_larger_images_are_asked_and_scored_alike(tasks, benchmark, tmp_path):
    name = benchmark.replace("pocket_", "pocket_next_")
    larger = load_task(name, data=write_benchmark(tmp_path / "data.parquet", benchmark))
    assert larger.questions() == tasks[benchmark].questions()
    assert larger.metrics == tasks[benchmark].metrics


def test_choices_follow_the_question_with_their_letters(tasks):
    first, second, *_ = tasks["pocket_sqa"].questions()
    assert first.context == "how many bars are taller than 3 ? A 1 B 2 C 3 D 4"
    assert second.context == "which color is there ? A red B blue"


def test_images_are_those_of_the_file(tasks):
    task = tasks["pocket_pope"]
    pictures = random_images(4, seed=1)
    for question in task.questions():
        expected = pictures[int(question.image_id.rpartition("-")[2])]
        assert np.array_equal(np.asarray(task.image(question)), np.asarray(expected))


@pytest.mark.parametrize("name", ["tgif", "msvd", "msrvtt", "activitynet"])
def test_clips_are_those_of_the_file(name, tmp_path):
    render(f"pocket_video_{name}", tmp_path / "data.parquet", 2)
    task = load_task(f"pocket_video_{name}", data=tmp_path / "data.parquet")
    assert task.metrics == ["exact_match"]
    asked = {question.image_id: question for question in task.questions()}
    films = {image: film for image, film, _ in items(BENCHMARK_OF[f"pocket_video_{name}"], 2)}
    assert set(asked) == set(films)
    for image, film in films.items():
        (clip,) = task.media(asked[image])
        assert np.array_equal(clip.frames, moments(film)[0])


def test_limit_takes_the_first_questions(tasks, tmp_path):
    data = write_benchmark(tmp_path / "data.parquet", "pocket_gqa")
    limited = load_task("pocket_gqa", data=data, limit=3)
    assert limited.questions() == tasks["pocket_gqa"].questions()[:3]


def test_images_without_a_name_are_told_apart_by_their_pixels(tasks):
    task = tasks["pocket_pope"].task
    docs = task.eval_docs.remove_columns("image_id")
    names = image_names(docs, range(len(docs)), task.doc_to_visual)
    assert names[::2] == names[1::2]
    assert len(set(names)) == 4


def test_the_default_file_is_found_from_the_working_directory(tmp_path, monkeypatch):
    write_benchmark(tmp_path / "results/pocket/data/pocket_pope.parquet", "pocket_pope")
    monkeypatch.chdir(tmp_path)
    assert len(load_task("pocket_pope").questions()) == 8


def test_what_was_never_rendered_is_rendered_once(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "hf"))
    monkeypatch.chdir(tmp_path)
    first = load_task("pocket_pope").questions()
    (rendered,) = (tmp_path / "hf" / "prunesid").iterdir()
    assert str(rendered) in capsys.readouterr().err
    render("pocket_pope", tmp_path / "whole.parquet")
    assert rendered.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert load_task("pocket_pope").questions() == first
    assert "Rendering" not in capsys.readouterr().err
    # A task that is given its data needs none of that.
    data = write_benchmark(tmp_path / "data.parquet", "pocket_gqa")
    load_task("pocket_gqa", data=data)
    assert list(rendered.parent.iterdir()) == [rendered]


def test_errors_are_early_and_name_the_choices(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="data/msvd_qa.parquet, which does not exist"):
        load_task("msvd_qa")
    with pytest.raises(ValueError, match="Did you mean 'pocket_pope'"):
        load_task("pocket_pop")
    with pytest.raises(ValueError, match="group"):
        load_task("mmbench")


def test_visuals_without_a_name_are_told_apart_by_all_that_they_show(tmp_path):
    one, two, three = random_images(3)
    video = write_video(tmp_path / "one.mp4", 4)
    copy = tmp_path / "two.mp4"
    copy.write_bytes(video.read_bytes())
    shown = [
        [one], [one, two], [two, one], [one, two], [str(video)], [str(copy)], [one, str(copy)],
        [three], [], None,
    ]  # fmt: skip
    names = image_names(Documents(shown), range(len(shown)), lambda doc: doc)
    assert names[1] == names[3] and names[4] == names[5]
    assert len(set(names)) == len(shown) - 2


class Documents(list):
    """Documents without a field that names what they show."""

    column_names: tuple[str, ...] = ()


def test_questions_about_nothing_have_no_media_and_share_no_name(tmp_path):
    (tmp_path / "words.yaml").write_text(
        "task: words\ndataset_path: parquet\ntest_split: test\noutput_type: generate_until\n"
        "doc_to_text: question\ndoc_to_target: answer\ndoc_to_visual: images\n"
        "metric_list: [{metric: exact_match, aggregation: mean, higher_is_better: true}]\n"
    )
    columns = {"question": ["why ?"] * 3, "answer": ["so"] * 3}
    pictures = random_images(2)
    table = Dataset.from_dict(columns | {"images": [[], pictures, []]})
    table.cast_column("images", List(Image())).to_parquet(tmp_path / "words.parquet")
    task = load_task("words", tmp_path, data=tmp_path / "words.parquet")
    questions = task.questions()
    assert [len(task.media(question)) for question in questions] == [0, 2, 0]
    assert len({question.image_id for question in questions}) == 3
