"""The video benchmarks: from their own files to questions, clips and scores."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from builders.videos import write_video

from prunesid.lmms.scoring import score
from prunesid.lmms.tasks import load_task
from prunesid.lmms.tasks.video_qa import convert, holds, main, process_results, words

TASKS = ("tgif_qa", "msvd_qa", "msrvtt_qa", "activitynet_qa")
ASKED = [
    ("first", "what is a man doing?", "play guitar", 0),
    ("first", "is the man alone?", "yes", 3),
    ("second", "how many people are there?", "2", 7),
]


@pytest.fixture
def original(tmp_path):
    """Question and answer lists as published, answers in another order, and the videos."""
    asked = [
        {"video_name": video, "question_id": f"q{n}", "question": question}
        for n, (video, question, *_) in enumerate(ASKED)
    ]
    given = [
        {"question_id": f"q{n}", "answer": answer, "type": kind}
        for n, (*_, answer, kind) in enumerate(ASKED)
    ]
    (tmp_path / "test_q.json").write_text(json.dumps(asked))
    (tmp_path / "test_a.json").write_text(json.dumps(given[::-1]))
    write_video(tmp_path / "videos" / "first.mp4", 20)
    # ActivityNet's files have a prefix that its question list leaves out.
    write_video(tmp_path / "videos" / "v_second.mkv", 12)
    return tmp_path


def converted(folder, **options):
    output = folder / "data" / "msvd_qa.parquet"
    convert(folder / "test_q.json", folder / "test_a.json", folder / "videos", output, **options)
    return output


@pytest.mark.parametrize("name", TASKS)
def test_questions_and_clips_are_those_of_the_files(original, name):
    task = load_task(name, data=converted(original))
    questions = task.questions()
    assert [q.context for q in questions] == [question for _, question, *_ in ASKED]
    assert [q.target for q in questions] == [answer for *_, answer, _ in ASKED]
    assert [q.image_id for q in questions] == ["first", "first", "second"]
    assert [q.category for q in questions] == ["0", "3", "7"]
    (clip,) = replace(task, frames=4).media(questions[2])
    assert clip.indices == (0, 3, 7, 11)
    (again,) = task.media(questions[0])
    assert again.frames.shape == (8, 32, 48, 3)


def test_replies_score_as_declared(original):
    task = load_task("msvd_qa", data=converted(original))
    replies = {"0": "He is playing the guitar.", "1": "No, yes", "2": "Two"}
    found = score(task, replies, "answer_match")
    assert found.by_question == {"0": 1.0, "1": 0.0, "2": 1.0}
    assert found.metrics == {
        "answer_match,none": pytest.approx(2 / 3),
        "exact_match,none": pytest.approx(1 / 3),
    }


@pytest.mark.parametrize(
    ("answer", "reply", "expected"),
    [
        ("guitar", "A man plays a guitar.", (1, 0)),
        ("guitar", "Guitars!", (1, 1)),
        ("slice", "The woman is slicing a tomato", (1, 0)),
        ("run", "He is running", (1, 0)),
        ("carry", "They carried it", (1, 0)),
        ("two", "There are 2 dogs", (1, 0)),
        ("man", "A woman", (0, 0)),
        ("playing piano", "piano playing", (0, 0)),
        ("play piano", "She plays the piano.", (1, 0)),
        ("yes", "Yes, it is.", (1, 0)),
        ("no", "No", (1, 1)),
        ("no", "Yes, there is no dog", (0, 0)),
        ("cat", "", (0, 0)),
        ("the", "the", (0, 0)),
    ],
)
def test_a_reply_matches_by_its_words(answer, reply, expected):
    found = process_results({"answer": answer}, [reply])
    assert (found["answer_match"], found["exact_match"]) == expected


def test_inflections_are_one_word_and_different_words_stay_apart():
    for family in (
        "play plays played playing", "ride rides riding", "dance danced dancing", "dog dogs",
        "stop stopped stopping", "dress dresses dressing", "carry carries carried carrying",
        "fall falls falling", "watch watches watched", "bus buses",
    ):  # fmt: skip
        stems = {tuple(words(word)) for word in family.split()}
        assert len(stems) == 1, (family, stems)
    different = [
        "sing",
        "king",
        "ring",
        "bus",
        "dress",
        "dog",
        "car",
        "card",
        "red",
        "bed",
        "read",
        "run",
        "rug",
        "string",
        "grass",
        "gas",
    ]
    assert len({tuple(words(word)) for word in different}) == len(different)


def test_answers_of_several_words_stand_side_by_side():
    assert holds(words("a very tall green tree"), words("tall green"))
    assert not holds(words("a tall and green tree"), words("tall green"))


def test_missing_videos_are_listed_or_left_out(original):
    (original / "videos" / "v_second.mkv").unlink()
    with pytest.raises(
        ValueError, match=r"1 of 2 videos are missing, the first are second; .*--allow"
    ):
        converted(original)
    output = converted(original, allow_missing=True)
    assert [q.image_id for q in load_task("msvd_qa", data=output).questions()] == ["first"] * 2
    (original / "videos" / "first.mp4").unlink()
    with pytest.raises(ValueError, match="none of 2 videos is there"):
        converted(original, allow_missing=True)


def test_problems_of_the_lists_come_all_at_once(original):
    (original / "test_q.json").write_text(json.dumps([{"question_id": 1, "question": "what?"}]))
    (original / "test_a.json").write_text(json.dumps([{"question_id": 2}]))
    with pytest.raises(
        ValueError, match=r"(?s)test_q.json: 1 entries lack .*test_a.json: 1 entries"
    ):
        converted(original)
    (original / "test_q.json").write_text(
        json.dumps([{"question_id": 1, "question": "what?", "video_name": "first"}])
    )
    answer = {"question_id": 2, "answer": "cat"}
    (original / "test_a.json").write_text(json.dumps([answer, answer]))
    with pytest.raises(ValueError, match=r"(?s)1 question_ids stand twice.*the first is 1"):
        converted(original)
    (original / "test_a.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a list of objects"):
        converted(original)


def test_the_command_writes_what_the_task_reads_by_default(original, monkeypatch, capsys):
    monkeypatch.chdir(original)
    main(
        ["--questions", "test_q.json", "--answers", "test_a.json", "--videos", "videos",
         "--output", "data/activitynet_qa.parquet"]
    )  # fmt: skip
    assert capsys.readouterr().out == "data/activitynet_qa.parquet: 3 questions\n"
    assert len(load_task("activitynet_qa").questions()) == 3
    with pytest.raises(ValueError, match="data/msvd_qa.parquet, which does not exist"):
        load_task("msvd_qa")
    with pytest.raises(SystemExit):
        main(["--questions", "no.json", "--answers", "no.json", "--videos", "v", "--output", "o"])
    assert "there is no such file" in capsys.readouterr().err
