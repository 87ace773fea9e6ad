"""Many arms of one benchmark with one loaded model; each finished arm is stored at once."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from tqdm import tqdm

from prunesid.core.delayed import Tensor
from prunesid.core.faults import blamed
from prunesid.core.memory import Halving
from prunesid.core.questions import Answer, Question, write_answers
from prunesid.core.record import Kept
from prunesid.images.relevance import by_question
from prunesid.study.provenance.contents import version
from prunesid.study.provenance.store import Store

if TYPE_CHECKING:
    from prunesid.families.base import Adapter
    from prunesid.generate.decoding import Inputs


@dataclass(frozen=True)
class Late:
    """A method inside the language model, and its `params` as the method takes them."""

    method: str
    budget: int | None
    params: Mapping[str, Any]

    def material(self) -> dict[str, Any]:
        """What a method inside the language model adds to the key of the answers."""
        return {"method": self.method, "budget": self.budget, "params": dict(self.params)}


@dataclass(frozen=True)
class Job:
    """The answers of one arm: their key, and how to get the arm's tokens.

    kept           gives the tokens; called only if the answers are not stored yet
    inputs         the owners of the rows of `kept` if each question is an input of its own
                   (`prunesid.images.relevance`); None: the images
    late           the method that drops some of these tokens inside the language model
    newline        the family's option of this name, if it is the arm's own
    cls_attention  gives the CLS attention of the kept tokens, if `late` needs it; see `answer_late`
    """

    name: str
    material: Mapping[str, Any]
    kept: Callable[[], Kept]
    late: Late | None = None
    cls_attention: Callable[[Kept], Tensor] | None = None
    inputs: Inputs | None = None
    newline: str | None = None


def answer_material(
    *,
    arm: Mapping[str, Any],
    benchmark: str,
    model: str,
    batch_size: int,
    code: str,
    dtype: str = "float32",
    device: str = "cpu",
) -> dict[str, Any]:
    """Everything that determines an arm's answers, as JSON values for a store key.

    arm        the resolved arm, or the key of its selection
    benchmark  digest of the questions and images
    model      digest of the checkpoint
    code       digest of the code that answers
    """
    return {
        "stage": "answer",
        "arm": dict(arm),
        "benchmark": benchmark,
        "model": model,
        "batch_size": batch_size,
        "dtype": dtype,
        "device": device,
        "code": code,
        "versions": {name: version(name) for name in ("torch", "transformers")},
    }


def missing(jobs: Sequence[Job], store: Store) -> list[Job]:
    """The jobs whose answers are not in the store; lets a caller skip loading the model."""
    return [job for job in jobs if Store.key(job.material) not in store]


def answer_arms(
    adapter: Adapter,
    jobs: Sequence[Job],
    inputs: Inputs,
    asked: Sequence[Question],
    store: Store,
    *,
    batch_size: int = 16,
    quiet: bool = False,
) -> dict[str, str]:
    """Answer and store what is missing; return the keys of all jobs in the store, by name.

    An interruption loses at most the arm in progress. `inputs` own the rows of a `kept` whose job
    has no inputs of its own. Payloads are the parquet files of `write_answers`, with rows in the
    order of `asked`.
    """
    keys = {job.name: Store.key(job.material) for job in jobs}
    if len(keys) != len(jobs):
        raise ValueError("two arms have the same name")
    todo, halving = missing(jobs, store), Halving("answers")
    done = len(jobs) - len(todo)
    with tqdm(total=len(todo) * len(asked), unit="question", disable=quiet) as bar:
        for number, job in enumerate(todo, done + 1):
            bar.set_description(f"arm {number}/{len(jobs)} {job.name}")
            kept, begun = job.kept(), time.perf_counter()
            own = (inputs, asked) if job.inputs is None else (job.inputs, by_question(asked))
            answers, tokens = _answer(adapter, job, kept, *own, batch_size, halving, bar.update)
            cost = {
                "seconds": time.perf_counter() - begun,
                "images": len(own[0]),
                "questions": len(asked),
                "tokens": tokens,
            }
            write = partial(write_answers, answers=answers)
            store.put(job.material, write, suffix=".parquet", cost=cost)
    return keys


def _answer(
    adapter: Adapter,
    job: Job,
    kept: Kept,
    inputs: Inputs,
    asked: Sequence[Question],
    batch_size: int,
    halving: Halving,
    progress: Callable[[int], object],
) -> tuple[list[Answer], int]:
    """The answers, and the visual tokens that were run: per input, or per question if late."""
    # Here: both import torch, and the keys of answers do without.
    from prunesid.generate.engine import answer
    from prunesid.generate.late import answer_late

    late = job.late
    if job.newline is not None:
        adapter = adapter.with_newline(job.newline)
    if late is None:
        answers = answer(
            adapter, kept, inputs, asked, batch_size=batch_size, halving=halving, progress=progress
        )
        return answers, int(kept.count.sum())
    attention = None if job.cls_attention is None else job.cls_attention(kept)
    with blamed(lambda _: f"arm {job.name!r}"):
        found = answer_late(
            adapter, kept, inputs, asked, late.method, budget=late.budget, params=late.params,
            cls_attention=attention, batch_size=batch_size, halving=halving, progress=progress,
        )  # fmt: skip
    return found.answers, round(sum(each.tokens for each in found.answers))
