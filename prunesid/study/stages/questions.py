"""Questions on each image, as methods that choose by image and question compare them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from safetensors.torch import save_file

from prunesid.core.files import atomic
from prunesid.images.relevance import TEXT_TOWER, encoders_of, prompts_of
from prunesid.study.files.features import read_head
from prunesid.study.provenance.contents import tower_digest
from prunesid.study.stages.device import model_of
from prunesid.study.stages.shard import WHOLE, Shard
from prunesid.study.stages.source import Runtime, Source

if TYPE_CHECKING:
    from prunesid.study.config.arm import Arm


def write_questions(
    source: Source, runtime: Runtime, arms: Sequence[Arm], features: Path, output: Path,
    shard: Shard = WHOLE,
) -> None:  # fmt: skip
    """Encode every question of a benchmark's shard once, for all arms that choose by it.

    features  file of the shard's features
    """
    made, every = read_head(features), source.open().questions()
    inputs = made.inputs
    prompts = prompts_of(inputs, made.readable(shard.questions(every, runtime.batch_size)))
    # What an encoder reads of a question.
    texts = [
        (prompt.context, tuple(medium.kind for medium in inputs[prompt.image]))
        for prompt in prompts.values()
    ]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    tower = dict(runtime.options).get(TEXT_TOWER)
    encoders = encoders_of((each for arm in arms for each in arm.asked), tower) if prompts else ()
    tensors = {"place": torch.tensor([places[text] for text in texts], dtype=torch.int64)}
    if encoders:
        with model_of(runtime, source.task) as adapter:
            for encoder in encoders:
                tensors[encoder] = torch.stack(
                    [adapter.question(encoder, *text) for text in places]
                )
    listed = json.dumps(
        [[prompt.image, prompt.context, prompt.questions] for prompt in prompts.values()]
    )
    head = {"asks": listed, "text_tower": json.dumps(tower and tower_digest(str(tower)))}
    with atomic(output) as temporary:
        save_file(tensors, temporary, metadata=head)
