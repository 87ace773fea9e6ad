"""Documents of lmms-eval's benchmarks, made up, with the fields and types of the real ones.

Each benchmark has a few questions with a right and a wrong reply to each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset, Image, List

from builders.tiny_llava import random_images

IMAGE = "image"


@dataclass(frozen=True)
class Made:
    """`docs` without images; `images` of each (in the columns `columns`), `right` and `wrong`."""

    docs: Sequence[dict[str, Any]]
    right: Sequence[str]
    wrong: Sequence[str]
    images: Sequence[int] = ()
    columns: Sequence[str] = (IMAGE,)
    listed: bool = False

    def write(self, path: Path) -> Path:
        """Parquet; `images[i]` is the number of the picture in document i, by default its own."""
        places = self.images or range(len(self.docs))
        pictures = random_images(max(places) + 4, seed=3)
        columns: dict[str, list[Any]] = {
            key: [doc[key] for doc in self.docs] for key in self.docs[0]
        }
        for offset, column in enumerate(self.columns):
            columns[column] = [pictures[place + offset] for place in places]
            if self.listed:
                counts = [3 if doc["data_type"] == "video" else 1 for doc in self.docs]
                columns[column] = [
                    pictures[place : place + count]
                    for place, count in zip(places, counts, strict=True)
                ]
        table = Dataset.from_dict(columns)
        for column in self.columns:
            table = table.cast_column(column, List(Image()) if self.listed else Image())
        table.to_parquet(path)
        return path


def _people(*answers: str) -> list[str]:
    """Ten people's answers: the given ones, the last one as often as needed."""
    return [*answers, *[answers[-1]] * (10 - len(answers))]


def _vqa(*answers: str) -> list[dict[str, Any]]:
    return [
        {"answer": answer, "answer_confidence": "yes", "answer_id": number}
        for number, answer in enumerate(_people(*answers), 1)
    ]


def _bench(index: int, answer: str, options: Sequence[str], **more: Any) -> dict[str, Any]:
    letters = dict(zip("ABCD", [*options, *["nan"] * (4 - len(options))], strict=True))
    return {
        "index": index, "question": "What is shown?", "hint": "nan", "answer": answer, **letters,
        "category": "object_localization", "source": "made up", "L2-category": "perception",
        "comment": "nan", "split": "dev", **more,
    }  # fmt: skip


def _seed(number: int, answer: str, kind: str) -> dict[str, Any]:
    return {
        "answer": answer, "choice_a": "One", "choice_b": "Two", "choice_c": "Three",
        "choice_d": "Four", "data_id": f"d{number}", "data_type": kind,
        "question": "How many towels are in the image?", "question_id": str(number),
        "question_type_id": 5, "segment": [],
    }  # fmt: skip


def _mmmu(number: int, answer: str, kind: str, options: str, question: str) -> dict[str, Any]:
    return {
        "id": f"validation_Accounting_{number}", "question": question, "options": options,
        "explanation": "", "img_type": "['Tables']", "answer": answer,
        "topic_difficulty": "Medium", "question_type": kind, "subfield": "Managerial Accounting",
    }  # fmt: skip


MADE: dict[str, Made] = {
    "gqa": Made(
        [
            {"id": "1", "imageId": "n1", "question": "Is it overcast?", "answer": "no",
             "fullAnswer": "No, it is clear."},
            {"id": "2", "imageId": "n1", "question": "Who is wearing a dress?", "answer": "woman",
             "fullAnswer": "The woman."},
        ],
        right=["No.", "woman"], wrong=["yes", "a woman in a dress"], columns=(),
    ),
    "mmbench_en_dev_static": Made(
        [
            _bench(7, "B", ["a cat", "a dog"]),
            _bench(1_000_007, "A", ["a dog", "a cat"]),
            _bench(8, "C", ["one", "two", "three", "four"], hint="Count them."),
            _bench(1_000_008, "B", ["four", "three", "one", "two"]),
        ],
        right=["B", "A. a dog", "(C)", "The answer is three"], wrong=["A", "B", "A", "D"],
        images=[0, 0, 1, 1],
    ),
    "mme": Made(
        [
            {"question_id": f"{kind}/{name}.jpg", "category": kind, "answer": answer,
             "question": "Is there a dog in this image? Please answer yes or no."}
            for kind, name in (("existence", "1"), ("existence", "2"), ("code_reasoning", "3"))
            for answer in ("Yes", "No")
        ],
        right=["Yes", "No"] * 3, wrong=["No", "Yes"] * 3, images=[0, 0, 1, 1, 2, 2],
    ),
    "pope": Made(
        [
            {"id": str(n), "question_id": str(n), "question": "Is there a dog in the image?",
             "answer": answer, "image_source": f"COCO_val2014_{n // 2}", "category": "popular"}
            for n, answer in enumerate(("yes", "no", "yes", "no"))
        ],
        right=["Yes", "no", "yes ", "No"], wrong=["no", "yes", "No", "Yes"], images=[0, 0, 1, 1],
    ),
    "scienceqa_img": Made(
        [
            {"question": "Which one is a solid?", "choices": ["rock", "milk"], "answer": 0,
             "hint": "", "task": "closed choice", "grade": "grade2", "subject": "natural science",
             "topic": "physics", "category": "Materials", "skill": "", "lecture": "",
             "solution": ""},
            {"question": "Which is farthest north?", "choices": ["Ohio", "Iowa", "Maine"],
             "answer": 2, "hint": "Look at the map.", "task": "closed choice", "grade": "grade3",
             "subject": "social science", "topic": "geography", "category": "Maps", "skill": "",
             "lecture": "", "solution": ""},
        ],
        right=["a", "C. Maine"], wrong=["B", "Maine"],
    ),
    "vqav2_val": Made(
        [
            {"question_type": "what is", "multiple_choice_answer": "net", "answer_type": "other",
             "answers": _vqa("netting", "net"), "image_id": 458752, "question_id": 458752000,
             "question": "What is this photo taken looking through?"},
            {"question_type": "how many", "multiple_choice_answer": "2", "answer_type": "number",
             "answers": _vqa("2"), "image_id": 458752, "question_id": 458752001,
             "question": "How many people are there?"},
        ],
        right=["Net.", "two"], wrong=["fence", "3"], images=[0, 0],
    ),
    "textvqa_val": Made(
        [
            {"image_id": "003a8ae2ef43b901", "question_id": 34602, "image_classes": ["Toy"],
             "question": "what is the brand of this camera?", "set_name": "val",
             "ocr_tokens": ["DAKOTA", "DIGITAL"], "answers": _people("nous les gosses", "dakota")},
            {"image_id": "4d2a3b", "question_id": 34603, "image_classes": ["Book"],
             "question": "what does it say?", "set_name": "val", "ocr_tokens": ["STOP"],
             "answers": _people("stop")},
        ],
        right=["Dakota", "STOP."], wrong=["canon", "go"],
    ),
    "mmmu_val": Made(
        [
            _mmmu(1, "B", "multiple-choice", "['$6', '$7', '$8', '$9']", "<image 1> What is due?"),
            _mmmu(2, "C", "multiple-choice", "['<image 1>', '<image 2>', 'neither']",
                  "Which one is right?"),
            _mmmu(3, "24", "open", "[]", "How many are in <image 2>, given <image 1>?"),
            _mmmu(4, "Turing", "open", "[]", "Who is in <image 1>?"),
        ],
        right=["B", "The answer is (C).", "The result is 24.", "It is Alan Turing"],
        wrong=["A", "(A)", "25", "Church"], columns=("image_1", "image_2"),
    ),
    "seedbench": Made(
        [_seed(1, "A", "image"), _seed(2, "C", "image"), _seed(3, "B", "video")],
        right=["A", "c", "B. Two"], wrong=["B", "D. Four", "Two"], listed=True,
    ),
    "vizwiz_vqa_val": Made(
        [
            {"question_id": "VizWiz_val_1", "question": "can you tell me what this is?",
             "answers": _people("unanswerable", "unsuitable", "soda can"), "category": "other"},
            {"question_id": "VizWiz_val_2", "question": "what color is it?",
             "answers": _people("unanswerable"), "category": "unanswerable"},
        ],
        right=["Soda can.", "Unanswerable"], wrong=["bottle", "red"],
    ),
    "llava_bench_local": Made(
        [
            {"question_id": 0, "question": "What is the name of the volcano?", "category": "conv",
             "caption": "An aerial view of Diamond Head.", "image_id": "001.jpg",
             "gpt_answer": "The volcano is Diamond Head."},
            {"question_id": 1, "question": "Describe this photo.", "category": "detail",
             "caption": "Diamond Head.", "image_id": "001.jpg",
             "gpt_answer": "A crater by the sea."},
        ],
        right=["The volcano is diamond head", "a crater by the sea"],
        wrong=["I cannot see it.", ""],
        images=[0, 0],
    ),
}  # fmt: skip
MADE["textvqa_val_ocr"] = MADE["textvqa_val"]
MADE["vqav2_val_lite"] = MADE["vqav2_val"]
MADE["llava_in_the_wild"] = MADE["llava_bench_local"]
