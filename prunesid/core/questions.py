"""Questions, the rule for where an answer ends, and the table that stores answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

# These change nothing without sampling, so tasks may set them.
_WITHOUT_EFFECT = frozenset({"image_aspect_ratio", "top_k", "top_p", "use_cache"})
_UNDERSTOOD = frozenset({"do_sample", "max_new_tokens", "num_beams", "temperature", "until"})
_DEFAULT_LENGTH = 1024
# Attribute of a table of scores: how many questions and images are left out because the images
# cannot be read. Tables that leave out none lack it.
LEFT_OUT = "left_out"


@dataclass(frozen=True)
class Question:
    """One question on one image; `id` is the task's document number as text.

    `input` names the input that the question is shown; "" means the image that all its questions
    share.
    """

    id: str
    image_id: str
    context: str
    gen_kwargs: Mapping[str, Any] = field(default_factory=dict)
    target: str = ""
    category: str = ""
    input: str = ""

    @property
    def shown(self) -> str:
        """The name of the input that it is shown."""
        return self.input or self.image_id


@dataclass(frozen=True)
class Answer:
    """One answer and the tokens that it took.

    tokens          visual tokens that enter a layer of the language model, mean over its layers
    text            other tokens of the prompt
    entering        visual tokens that enter each layer
    cached          visual tokens in each layer's cache when decoding starts
    selection_macs  multiply-adds of choosing tokens
    left            per crop of the input, a byte per patch: how many layers its token enters, 0
                    for patches that do not enter. Also None if tokens stand for several patches

    The last four are None unless tokens are dropped inside the language model.
    """

    question_id: str
    image_id: str
    answer: str
    tokens: float
    text: int
    entering: tuple[int, ...] | None = None
    cached: tuple[int, ...] | None = None
    selection_macs: int | None = None
    left: tuple[bytes, ...] | None = None


@dataclass(frozen=True)
class Stopping:
    """The end of an answer: an end token, `max_new_tokens` tokens, or a string of `until`."""

    max_new_tokens: int = _DEFAULT_LENGTH
    until: tuple[str, ...] = ()

    @classmethod
    def of(cls, gen_kwargs: Mapping[str, Any]) -> Stopping:
        """The rule in lmms-eval's generation arguments; ValueError unless decoding is greedy."""
        unknown = sorted(set(gen_kwargs) - _UNDERSTOOD - _WITHOUT_EFFECT)
        if unknown:
            raise ValueError(
                f"unknown generation arguments {unknown}; "
                f"choices: {', '.join(sorted(_UNDERSTOOD | _WITHOUT_EFFECT))}"
            )
        if gen_kwargs.get("do_sample") or float(gen_kwargs.get("temperature") or 0) > 0:
            raise ValueError("answers are greedy: do_sample must be false and temperature 0")
        if int(gen_kwargs.get("num_beams") or 1) != 1:
            raise ValueError("answers are greedy: num_beams must be 1")
        length = int(gen_kwargs.get("max_new_tokens") or _DEFAULT_LENGTH)
        if length < 1:
            raise ValueError(f"max_new_tokens must be at least 1, not {length}")
        until = gen_kwargs.get("until") or ()
        strings = (until,) if isinstance(until, str) else tuple(until)
        return cls(length, tuple(string for string in strings if string))

    def reached(self, text: str) -> bool:
        """Whether `text` holds one of the `until` strings."""
        return any(string in text for string in self.until)

    def cut(self, text: str) -> str:
        """`text` before the first of the `until` strings, without surrounding space."""
        for string in self.until:
            text = text.split(string, 1)[0]
        return text.strip()


def write_answers(path: Path, answers: Sequence[Answer]) -> None:
    """Write Parquet with a column per field of `Answer` and a row per answer."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    schema = pa.schema(
        [
            ("question_id", pa.string()),
            ("image_id", pa.string()),
            ("answer", pa.string()),
            ("tokens", pa.float64()),
            ("text", pa.int64()),
            ("entering", pa.list_(pa.int64())),
            ("cached", pa.list_(pa.int64())),
            ("selection_macs", pa.int64()),
            ("left", pa.list_(pa.binary())),
        ]
    )
    columns = {name: [getattr(answer, name) for answer in answers] for name in schema.names}
    pq.write_table(pa.table(columns, schema=schema), path, compression="zstd")


def read_answers(path: Path) -> list[Answer]:
    """The answers that `write_answers` wrote, in the same order."""
    import pyarrow.parquet as pq

    lists = ("entering", "cached", "left")
    return [
        Answer(**row | {k: None if row[k] is None else tuple(row[k]) for k in lists})
        for row in pq.read_table(path).to_pylist()
    ]
