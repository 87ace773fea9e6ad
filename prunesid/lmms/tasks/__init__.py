"""lmms-eval tasks as questions with their visuals, exactly as lmms-eval asks them.

This folder also holds the task definitions of the pocket benchmarks, and of those that lmms-eval
does not ship or scores by a judge alone (docs/benchmarks.md):

    lmms-eval --model prunesid --model_args pretrained=... --tasks pocket_pope \\
        --include_path prunesid/lmms/tasks
"""

from __future__ import annotations

import copy
import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from lmms_eval.api.task import ConfigurableTask
from lmms_eval.tasks import TaskManager
from lmms_eval.utils import load_yaml_config
from PIL import ImageFile, UnidentifiedImageError
from PIL.Image import DecompressionBombError, Image
from tenacity import RetryError

from prunesid.core.files import DIGEST_LENGTH, file_digest
from prunesid.core.questions import Question
from prunesid.core.registry import unknown
from prunesid.images.media import (
    BROKEN,
    FRAMES,
    Clip,
    Unreadable,
    first_image,
    flat,
    media_of,
)

FOLDER = Path(__file__).parent
# The file that a task being loaded reads instead of the one that its YAML names.
DATA: ContextVar[Path | None] = ContextVar("data", default=None)
# Fields in which lmms-eval's tasks name the image or video of a question.
_IMAGE_FIELDS = ("image_id", "imageId", "image_source", "video_name")
# Fields that sort a benchmark's questions into kinds.
_CATEGORY_FIELDS = ("category", "answer_type", "question_type", "data_type", "type")


@dataclass(frozen=True)
class LmmsTask:
    """A loaded lmms-eval task; `limit` takes only its first questions, `frames` is per clip."""

    name: str
    task: ConfigurableTask
    limit: int | None = None
    frames: int = FRAMES

    def questions(self) -> list[Question]:
        """All questions, in the task's order; ids are lmms-eval's document numbers as text."""
        self.task.build_all_requests(limit=self.limit)
        requests = [instance.args for instance in self.task.instances]
        numbers = [arguments[3] for arguments in requests]
        images = image_names(self.task.eval_docs, numbers, self.task.doc_to_visual)
        docs = self.task.eval_docs_no_media
        return [
            Question(
                id=str(number),
                image_id=image,
                context=context,
                gen_kwargs=gen_kwargs,
                target=_target(self.task, docs[number]),
                category=_category(docs[number]),
            )
            for (context, gen_kwargs, *_), number, image in zip(
                requests, numbers, images, strict=True
            )
        ]

    def media(self, question: Question) -> tuple[Image | Clip, ...]:
        """The images and clips of the question, in order; () if it has none.

        Unreadable, naming the question and the file or the row of the data set, if one cannot be
        read.
        """
        row = int(question.id)
        try:
            with _whole_images():
                return media_of(
                    _visuals(self.task.eval_docs, row, self.task.doc_to_visual), self.frames
                )
        except Unreadable as error:
            raise Unreadable(f"question {row} of {self.name}: {error}") from error

    def image(self, question: Question) -> Image:
        """The question's first image, or the first frame of its clip; ValueError if it has none."""
        return first_image(self.media(question))

    def only(self, questions: Sequence[Question]) -> LmmsTask:
        """The task on some of its questions, in the order given; their numbers start anew at 0."""
        rows = [int(question.id) for question in questions]
        docs, without_media = self.task.eval_docs, self.task.eval_docs_no_media
        task = copy.copy(self.task)
        task.test_docs = task.validation_docs = lambda: docs.select(rows)
        task.test_docs_no_media = task.validation_docs_no_media = lambda: without_media.select(rows)
        return replace(self, task=task, limit=None)

    @property
    def metrics(self) -> list[str]:
        """Names of the task's metrics."""
        return list(self.task.aggregation())


def load_task(
    name: str,
    include_path: str | Path | Sequence[str | Path] = FOLDER,
    *,
    data: str | Path | None = None,
    limit: int | None = None,
) -> LmmsTask:
    """The task called `name`, from `include_path` or, failing that, among lmms-eval's own.

    data  parquet file to read instead of the one that the task's YAML names. Without it, a pocket
          benchmark that has no file yet is rendered (`prunesid.pocket.rendered`)

    ValueError, naming the choices, on an unknown task, a group, another kind of task than
    generation, or missing files.
    """
    folders = [include_path] if isinstance(include_path, (str, Path)) else include_path
    paths = [str(folder) for folder in folders]
    manager = TaskManager("WARNING", paths, include_defaults=False, model_name="prunesid")
    if name not in manager.all_tasks:
        # Indexing lmms-eval's own tasks takes seconds, so only when needed, and once.
        manager = _all_tasks(*paths)
    if name not in manager.all_subtasks:
        kind = "task (this is a group or tag)" if name in manager.all_tasks else "task"
        raise ValueError(unknown(kind, name, manager.all_subtasks))
    config: dict[str, Any] = {"task": name}
    own = load_yaml_config(manager.task_index[name]["yaml_path"], mode="simple")
    if data is not None:
        split = own.get("test_split") or own.get("validation_split")
        config |= {"dataset_path": "parquet", "dataset_kwargs": {"data_files": {split: str(data)}}}
    _refuse_missing(name, own | config)
    token = DATA.set(None if data is None else Path(data))
    try:
        task = manager.load_task_or_group([config])[name]
    except RetryError as error:
        cause = error.last_attempt.exception()
        raise ValueError(f"Task {name!r} could not be loaded: {cause}") from cause
    except (UnidentifiedImageError, DecompressionBombError) as error:
        raise ValueError(
            f"Task {name!r}: the first row of its data cannot be read, and lmms-eval loads a task "
            f"by it; mend or remove that row: {error}"
        ) from error
    finally:
        DATA.reset(token)
    if task.OUTPUT_TYPE != "generate_until":
        raise ValueError(f"Task {name!r} asks for {task.OUTPUT_TYPE}; supported: generate_until")
    if task.get_config("num_fewshot") is None:
        # As simple_evaluate does before it builds the requests.
        task.set_config(key="num_fewshot", value=0)
    return LmmsTask(name, task, limit)


def image_names(
    docs: Any, numbers: Sequence[int], doc_to_visual: Callable[[Any], list[Any]]
) -> list[str]:
    """Names that tell apart the visual inputs of the documents `numbers`: a field, else a digest.

    A digest covers all visuals of a question: the pixels of images, the bytes of video files. A
    question without visuals, or with some that cannot be read, has a name of its own. `docs` is a
    `datasets.Dataset`; images are decoded only for digests.
    """
    for field in _IMAGE_FIELDS:
        if field in docs.column_names:
            names = docs.select_columns([field])[field]
            return [str(names[number]) for number in numbers]
    return [_name(docs, number, doc_to_visual) for number in numbers]


def _visuals(docs: Any, number: int, doc_to_visual: Callable[[Any], Any]) -> Any:
    """What a document shows; Unreadable, naming its row, if that cannot be decoded or opened."""
    try:
        doc = docs[number]
    except (*BROKEN, DecompressionBombError) as error:
        raise Unreadable(f"row {number} of its data cannot be read: {error}") from error
    try:
        return doc_to_visual(doc)
    except OSError as error:
        raise Unreadable(f"what row {number} of its data names cannot be read: {error}") from error


@contextmanager
def _whole_images() -> Iterator[None]:
    """Within the block a file that ends too early is an error; lmms-eval lets Pillow fill it up."""
    before = ImageFile.LOAD_TRUNCATED_IMAGES
    ImageFile.LOAD_TRUNCATED_IMAGES = False
    try:
        yield
    finally:
        ImageFile.LOAD_TRUNCATED_IMAGES = before


def _name(docs: Any, number: int, doc_to_visual: Callable[[Any], Any]) -> str:
    try:
        with _whole_images():
            each = [_digest(visual) for visual in flat(_visuals(docs, number, doc_to_visual))]
    except (Unreadable, FileNotFoundError):
        return f"unreadable-{number}"
    if len(each) == 1:
        return each[0]
    return _hash("".join(each).encode()) if each else f"nothing-{number}"


def _digest(visual: Any) -> str:
    if isinstance(visual, (str, os.PathLike)):
        return file_digest(visual)
    (medium,) = media_of([visual])
    if isinstance(medium, Clip):
        return _hash(repr(medium.frames.shape).encode() + medium.frames.tobytes())
    pixels = medium.convert("RGB")
    return _hash(repr(pixels.size).encode() + pixels.tobytes())


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:DIGEST_LENGTH]


def _target(task: ConfigurableTask, doc: Mapping[str, Any]) -> str:
    """The right answer as text; the commonest if people gave many (VQAv2, TextVQA, VizWiz).

    Such tasks name a field `answer` that their documents lack.
    """
    answers = doc.get("answers")
    if not answers or task.config.doc_to_target in doc:
        return str(task.doc_to_target(doc))
    said = [each["answer"] if isinstance(each, dict) else each for each in answers]
    return str(Counter(said).most_common(1)[0][0])


def _category(doc: Mapping[str, Any]) -> str:
    return next((str(doc[name]) for name in _CATEGORY_FIELDS if doc.get(name) is not None), "")


@cache
def _all_tasks(*paths: str) -> TaskManager:
    return TaskManager("WARNING", list(paths), include_defaults=True, model_name="prunesid")


def _refuse_missing(name: str, config: dict[str, Any]) -> None:
    # lmms-eval would retry for seconds and then hide the reason.
    if config.get("dataset_path") != "parquet":
        return
    files = config.get("dataset_kwargs", {}).get("data_files", {})
    for file in files.values() if isinstance(files, dict) else [files]:
        if isinstance(file, str) and "://" not in file and not Path(file).is_file():
            raise ValueError(f"Task {name!r} needs the file {file}, which does not exist")
