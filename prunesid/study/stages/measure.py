"""The clock: arms of an ablation on the same requests, nothing shared, station by station."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from tqdm import tqdm

from prunesid.core.files import atomic
from prunesid.core.questions import Question, Stopping, read_answers
from prunesid.generate.latency import Timing, measure
from prunesid.generate.stations import Pruning, Request
from prunesid.images.media import Clip
from prunesid.images.medium import IMAGE, VIDEO
from prunesid.study.provenance.store import Store
from prunesid.study.provenance.tables import read_shards
from prunesid.study.stages.budgets import Budgets
from prunesid.study.stages.device import device_name, model_of
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from prunesid.families.base import Adapter
    from prunesid.lmms.tasks import LmmsTask
    from prunesid.study.config.ablation import LatencyOptions
    from prunesid.study.config.arm import Arm

# An attention kernel of transformers that the model is not loaded with; clocked where it is there.
FLASH = "flash_attention_2"


def measure_arms(
    source: Source, runtime: Runtime, arms: Sequence[Arm], options: LatencyOptions,
    budgets: Budgets, answers: Sequence[Path], store: Store, output: Path,
) -> None:  # fmt: skip
    """Clock the arms, and write a CSV with a line per arm, batch size and batch.

    budgets  of the benchmark's images, for arms whose images share a budget
    answers  tables of the study's answers, of all shards of the benchmark

    arm, attention  what ran; attention is '' for the model's own
    batch, number   requests at once, and the batch's number, which all arms share
    at_once         the most that were served at once: fewer where memory did not suffice
    questions, tokens, steps, kv_bytes, memory  as `prunesid.generate.stations.Served` has them
    same            how many of the answers are those of the study
    preprocess .. decode  seconds of each station
    machine         device, threads of a CPU, and the model's type of numbers

    ValueError if the benchmark has fewer images than the largest batch takes.
    """
    task = source.open()
    known = {
        name: {
            each.question_id: each.answer for key in keys for each in read_answers(store.get(key))
        }
        for name, keys in read_shards(answers).items()
    }
    # The study answers all but those on images that cannot be read.
    answered = set().union(*known.values())
    readable = [question for question in task.questions() if question.id in answered]
    questions = _one_per_image(readable, options.questions)
    stopping = [Stopping.of(question.gen_kwargs) for question in questions]
    with model_of(runtime, source.task) as adapter:
        requests = [_request(adapter, task, question) for question in questions]
        ways = {(arm.name, ""): _pruning(arm, budgets) for arm in arms}
        if runtime.device.startswith("cuda") and _has_flash():
            sdpa = str(adapter.model.config._attn_implementation)
            ways = {key: replace(way, attention=sdpa) for key, way in ways.items()}
            ways |= {(arm.name, FLASH): Pruning(attention=FLASH) for arm in arms if arm.is_vanilla}
        named = {" ".join(key).strip(): key for key in ways}
        asked = {question.image_id: question for question in questions}
        passes = sum(len(requests) // size * size for size in options.batches)
        with tqdm(total=passes * options.rounds * len(ways), unit="request") as bar:
            timings = measure(
                adapter, {name: ways[key] for name, key in named.items()}, requests,
                batches=options.batches, rounds=options.rounds,
                max_new_tokens=max(each.max_new_tokens for each in stopping), progress=bar.update,
            )  # fmt: skip
            machine = _machine(adapter)
            lines = [
                _line(adapter, each, named[each.arm], asked, known) | {"machine": machine}
                for each in timings
            ]
    with atomic(output) as temporary:
        pd.DataFrame(lines).to_csv(temporary, index=False, float_format="%.7g", lineterminator="\n")


def _one_per_image(questions: Sequence[Question], count: int) -> list[Question]:
    """The first question of each image, of the first `count` images."""
    first: dict[str, Question] = {}
    for question in questions:
        first.setdefault(question.image_id, question)
    return list(first.values())[:count]


def _request(adapter: Adapter, task: LmmsTask, question: Question) -> Request:
    media = list(task.media(question))
    kinds = [VIDEO if isinstance(medium, Clip) else IMAGE for medium in media]
    prompt = adapter.prompt(question.context, kinds)
    return Request(question.image_id, media, prompt, question.context)


def _pruning(arm: Arm, budgets: Budgets) -> Pruning:
    if arm.budget is None:
        return Pruning()
    shared: int | Mapping[str, int] = arm.budget
    if arm.dynamic is not None:
        shared = budgets[arm.dynamic, arm.budget]
    return Pruning(arm.method, shared, arm.params, arm.seed)


def _machine(adapter: Adapter) -> str:
    threads = torch.get_num_threads()
    name = device_name(str(adapter.device))
    own = f"{name}, {threads} threads" if adapter.device.type == "cpu" else name
    return f"{own}, {str(adapter.dtype).removeprefix('torch.')}"


def _has_flash() -> bool:
    from transformers.utils import is_flash_attn_2_available

    return bool(is_flash_attn_2_available())


def _line(
    adapter: Adapter, timing: Timing, key: tuple[str, str], asked: Mapping[str, Question],
    known: Mapping[str, Mapping[str, str]],
) -> dict[str, Any]:  # fmt: skip
    arm, attention = key
    served, same = timing.served, 0
    for name, ids in zip(timing.requests, served.answers, strict=True):
        question = asked[name]
        end = next((place for place, i in enumerate(ids) if i in adapter.end_ids), len(ids))
        text = Stopping.of(question.gen_kwargs).cut(adapter.decode(ids[:end]))
        same += known[arm][question.id] == text
    return {
        "arm": arm,
        "attention": attention,
        "batch": timing.batch,
        "number": timing.number,
        "at_once": timing.at_once,
        "questions": len(timing.requests),
        "tokens": served.tokens,
        "steps": served.steps,
        "kv_bytes": served.kv_bytes,
        "memory": served.memory,
        "same": same,
        **served.seconds,
    }
