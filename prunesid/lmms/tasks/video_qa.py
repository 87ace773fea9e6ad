"""Open-ended questions on videos: TGIF-QA, MSVD-QA, MSRVTT-QA and ActivityNet-QA.

This module turns their files, laid out as in Video-LLaVA's evaluation, into the file that the tasks
read:

    python -m prunesid.lmms.tasks.video_qa --questions test_q.json --answers test_a.json \\
        --videos videos --output data/msvd_qa.parquet

The published scores come from a GPT judge. Ours need no judge, like the scores used before it:

    answer_match  the reply contains the answer's words, one after the other. Inflections count as
                  the same word, and a reply to a yes/no question begins with the answer
    exact_match   the reply is the answer, after the same normalization
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lmms_eval.tasks._task_utils.vqa_eval_metric import EvalAIAnswerProcessor

from prunesid.core.files import atomic
from prunesid.images.media import VIDEO_SUFFIXES

# Shorter stems are not split off: the "s" of "sing" is no stem.
_STEM = 3
_NORMALIZE = EvalAIAnswerProcessor()


def doc_to_visual(doc: dict[str, Any]) -> list[str]:
    """The path of the video."""
    return [doc["video"]]


def doc_to_text(doc: dict[str, Any], lmms_eval_specific_kwargs: dict[str, str]) -> str:
    """The benchmark's question, unchanged, between the prompts."""
    prompts = lmms_eval_specific_kwargs
    return f"{prompts['pre_prompt']}{doc['question']}{prompts['post_prompt']}"


def process_results(doc: dict[str, Any], results: Sequence[str]) -> dict[str, float]:
    """`answer_match` and `exact_match` of one reply, each 0 or 1."""
    reply, answer = words(results[0]), words(doc["answer"])
    return {
        "answer_match": float(holds(reply, answer)),
        "exact_match": float(reply == answer and bool(answer)),
    }


def words(text: str) -> list[str]:
    """Stems of a text's words after VQA's normalization (case, articles, numerals, punctuation)."""
    return [_stem(word) for word in re.findall(r"[^\W_]+(?:'[^\W_]+)?", _NORMALIZE(text))]


def holds(reply: Sequence[str], answer: Sequence[str]) -> bool:
    """Whether the reply contains the answer's words in a row; for yes and no, at its beginning."""
    if not answer:
        return False
    if list(answer) in (["yes"], ["no"]):
        return list(reply[:1]) == list(answer)
    return any(
        list(reply[start : start + len(answer)]) == list(answer) for start in range(len(reply))
    )


def _stem(word: str) -> str:
    """The word without the endings of English plurals and verbs: play, plays, played, playing.

    The benchmarks' answers are base forms, taken from captions by rule.
    """
    for ending in ("ing", "ies", "ied", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem == word or len(stem) < _STEM or (ending == "s" and stem.endswith(("s", "u", "i"))):
            continue
        if ending in ("ies", "ied"):
            return f"{stem}y"
        doubled = ending in ("ing", "ed") and stem[-1] == stem[-2] and stem[-1] not in "lsz"
        return (stem[:-1] if doubled else stem).removesuffix("e")
    return word.removesuffix("e") if len(word) > _STEM else word


def read_questions(questions: Path, answers: Path) -> list[dict[str, Any]]:
    """Rows of question_id, video_name, question, answer, type from the two JSON files.

    `questions` is a list of {video_name, question_id, question}, `answers` one of
    {question_id, answer, type}; they are joined by question_id. ValueError lists every problem.
    """
    asked, given = (_read_list(path) for path in (questions, answers))
    problems = []
    for path, entries, fields in (
        (questions, asked, ("question_id", "video_name", "question")),
        (answers, given, ("question_id", "answer")),
    ):
        lacking = [n for n, entry in enumerate(entries) if not set(fields) <= set(entry)]
        if lacking:
            problems.append(
                f"{path}: {len(lacking)} entries lack one of {', '.join(fields)}, the first is "
                f"number {lacking[0]}"
            )
    if problems:
        raise ValueError("\n".join(problems))
    right = {str(entry["question_id"]): entry for entry in given}
    if len(right) < len(given):
        problems.append(f"{answers}: {len(given) - len(right)} question_ids stand twice")
    unanswered = [e["question_id"] for e in asked if str(e["question_id"]) not in right]
    if unanswered:
        problems.append(
            f"{answers}: {len(unanswered)} questions have no answer, the first is {unanswered[0]}"
        )
    if problems:
        raise ValueError("\n".join(problems))
    return [
        {
            "question_id": str(entry["question_id"]),
            "video_name": str(entry["video_name"]),
            "question": str(entry["question"]),
            "answer": str(right[str(entry["question_id"])]["answer"]),
            "type": str(right[str(entry["question_id"])].get("type", "")),
        }
        for entry in asked
    ]


def find_videos(names: Sequence[str], folder: Path) -> dict[str, Path]:
    """The file in `folder` of each video name, for the names that have one.

    A name may have its suffix or not. The file's name may begin with `v_`, as in ActivityNet.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in VIDEO_SUFFIXES:
            files.setdefault(path.name, path)
            files.setdefault(path.stem, path)
    found = {name: files.get(name) or files.get(f"v_{name}") for name in names}
    return {name: path.resolve() for name, path in found.items() if path is not None}


def convert(
    questions: Path, answers: Path, videos: Path, output: Path, *, allow_missing: bool = False
) -> int:
    """Write the task's parquet file and return the number of its questions.

    Columns: question_id, video_name, question, answer, type (text) and video, the file's absolute
    path. ValueError if a video is missing; `allow_missing` leaves its questions out instead.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = read_questions(questions, answers)
    if not videos.is_dir():
        raise ValueError(f"{videos}: there is no such folder")
    names = list(dict.fromkeys(row["video_name"] for row in rows))
    found = find_videos(names, videos)
    missing = [name for name in names if name not in found]
    if missing and not allow_missing:
        raise ValueError(
            f"{videos}: {len(missing)} of {len(names)} videos are missing, the first are "
            f"{', '.join(missing[:5])}; --allow-missing leaves their questions out"
        )
    kept = [
        row | {"video": str(found[row["video_name"]])} for row in rows if row["video_name"] in found
    ]
    if not kept:
        raise ValueError(f"{videos}: none of {len(names)} videos is there")
    with atomic(output) as temporary:
        pq.write_table(pa.Table.from_pylist(kept), temporary)
    return len(kept)


def _read_list(path: Path) -> list[dict[str, Any]]:
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file")
    entries = json.loads(path.read_text())
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
        raise ValueError(f"{path}: expected a list of objects")
    return entries


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description="questions on videos -> the file of a task")
    parser.add_argument("--questions", type=Path, required=True, help="list of questions, JSON")
    parser.add_argument("--answers", type=Path, required=True, help="list of answers, JSON")
    parser.add_argument("--videos", type=Path, required=True, help="folder of the video files")
    parser.add_argument("--output", type=Path, required=True, help="data/<task>.parquet")
    parser.add_argument(
        "--allow-missing", action="store_true", help="leave out questions whose video is missing"
    )
    given = parser.parse_args(arguments)
    try:
        count = convert(
            given.questions,
            given.answers,
            given.videos,
            given.output,
            allow_missing=given.allow_missing,
        )
    except ValueError as error:
        parser.error(str(error))
    print(f"{given.output}: {count} questions")


if __name__ == "__main__":
    main()
