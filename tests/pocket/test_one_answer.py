"""An arm of an embedded model answers alike by all ways: the pipeline, `pruned` and lmms-eval."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import pytest
import torch
from lmms_eval.evaluator import simple_evaluate
from lmms_eval.tasks import TaskManager

import prunesid
from prunesid.core.questions import Stopping
from prunesid.families import load
from prunesid.families.adapter import around
from prunesid.generate.engine import answer, enter
from prunesid.generate.late import answer_late
from prunesid.images.medium import IMAGE, VIDEO
from prunesid.lmms.plugin import PruneSID
from prunesid.lmms.tasks import FOLDER, load_task
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.registry import DECODER, ENCODER, METHODS, requirements
from prunesid.pocket import EMBEDDED
from prunesid.pocket.benchmarks import render

# A benchmark, what it shows, a budget that methods inside the language model can give, and options.
MODELS = {
    "pocket-next": ("pocket_next_sqa", IMAGE, 720, {"newline": "rows"}),
    "pocket-gemini": ("pocket_next_sqa", IMAGE, 192, {}),
    "pocket-video": ("pocket_video_msrvtt", VIDEO, 512, {"scope": "clip", "frame_cls": "keep"}),
}
PLAIN = {"method": "prunesid"}
ARMS = ({**PLAIN, "options": True}, {"method": "visionzip"}, {"method": "tome"},
        {"method": "fastv"}, {"method": "mustdrop", "rule": "budget"})  # fmt: skip
IMAGES = 2


@pytest.fixture(scope="module", params=MODELS)
def case(request, tmp_path_factory):
    """The model's name, its task, what it shows, a budget, and options."""
    name, kind, budget, options = MODELS[request.param]
    data = tmp_path_factory.mktemp(request.param) / "data.parquet"
    render(name, data, IMAGES)
    return request.param, load_task(name, data=data), kind, budget, options


def by_pipeline(adapter, task, method, budget, **params):
    """{question: answer}: everything encoded once, tokens chosen, all questions at once."""
    questions, place = task.questions(), METHODS[method].place
    shown = {question.image_id: task.media(question) for question in questions}
    owners = [image for image, media in shown.items() for _ in media]
    inputs = adapter.preprocess([medium for media in shown.values() for medium in media])
    if place == ENCODER:
        kept, records = adapter.reduce(inputs, adapter.plans(method, budget, params), owners)
    else:
        needs = requirements if place == DECODER else requirements_in_crops
        records = adapter.encode(inputs, needs(method, **params), owners)
        kept = records.all_tokens()
    if place == DECODER:
        attention = None
        if requirements(method, **params).last_cls_attention:
            attention = records.gather(kept.index, "last_cls_attention")
        found = answer_late(
            adapter, kept, records.inputs, questions, method, budget=budget, params=params,
            cls_attention=attention, batch_size=4,
        ).answers  # fmt: skip
    else:
        if place != ENCODER:
            kept = records.compress(method, budget=budget, **params)
        found = answer(adapter, kept, records.inputs, questions, batch_size=4)
    return {each.question_id: each.answer for each in found}


def by_pruned(adapter, task, kind, options, method, budget, **params):
    """{question: answer}: the model's own `generate`, question by question."""
    found = {}
    for question in task.questions():
        inputs = adapter.preprocess(task.media(question))
        records = adapter.encode(inputs)
        (media,) = records.inputs.values()
        parts = enter(adapter, records.all_tokens(), media)
        texts = around(adapter.prompt(question.context, [kind]).texts, parts)
        ids = list(texts[0])
        for part, text in zip(parts, texts[1:], strict=True):
            ids += [adapter.placeholders[kind]] * len(part) + list(text)
        tokens = {"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids))}
        stopping = Stopping.of(question.gen_kwargs)
        model = adapter.model
        with prunesid.pruned(model, adapter.processor, method, budget, options=options, **params):
            output = model.generate(
                **tokens, **inputs, do_sample=False, max_new_tokens=stopping.max_new_tokens
            )
        words = [i for i in output[0, len(ids) :].tolist() if i not in adapter.end_ids]
        found[question.id] = stopping.cut(adapter.decode(words))
    return found


def by_lmms(path, task, options, method, budget, **params):
    """{question: answer}: lmms-eval with the plug-in, in this process."""
    run = simple_evaluate(
        model=PruneSID(str(path), batch_size=3, method=method, budget=budget, **options, **params),
        tasks=[task.task],
        task_manager=TaskManager("WARNING", include_defaults=False),
        bootstrap_iters=0,
    )
    (samples,) = run["samples"].values()
    return {str(each["doc_id"]): each["filtered_resps"][0] for each in samples}


@pytest.mark.parametrize("arm", ARMS, ids=lambda arm: arm["method"])
def test_an_arm_answers_alike_by_all_ways(case, arm):
    name, task, kind, budget, options = case
    options = options if arm.get("options") else {}
    arm = {key: value for key, value in arm.items() if key != "options"} | {"budget": budget}
    adapter = load(EMBEDDED[name], **options)
    found = by_pipeline(adapter, task, **arm)
    assert len(found) >= 4 and len(set(found.values())) > 1
    assert by_pruned(adapter, task, kind, options, **arm) == found
    assert by_lmms(EMBEDDED[name], task, options, **arm) == found


@pytest.mark.slow
def test_lmms_eval_s_command_line_answers_as_the_pipeline(case, tmp_path):
    name, task, _, budget, options = case
    expected = by_pipeline(load(EMBEDDED[name], **options), task, "prunesid", budget)
    render(task.name, tmp_path / f"results/pocket/data/{task.name}.parquet", IMAGES)
    shutil.copytree(FOLDER, tmp_path / "tasks")
    given = {"pretrained": EMBEDDED[name], "method": "prunesid", "budget": budget, **options}
    command = [
        sys.executable, "-m", "lmms_eval", "--model", "prunesid", "--batch_size", "2",
        "--model_args", ",".join(f"{key}={value}" for key, value in given.items()),
        "--tasks", task.name, "--include_path", "tasks", "--output_path", "out", "--log_samples",
    ]  # fmt: skip
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "hf")}
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    (path,) = (tmp_path / "out").rglob(f"*_samples_{task.name}.jsonl")
    lines = map(json.loads, path.read_text().splitlines())
    assert {str(each["doc_id"]): each["filtered_resps"] for each in lines} == expected
