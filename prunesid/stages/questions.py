"""What is asked of each image, as methods that choose by image and question compare it with patches."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from prunesid.asking import TEXT_TOWER, Ask, asks_of, encoder_of, encoders_of, owners
from prunesid.files import atomic
from prunesid.models import load
from prunesid.record import CLIP
from prunesid.records import Medium, repeated
from prunesid.stages.device import device_slot
from prunesid.stages.features import read_head
from prunesid.stages.material import model_path, tower_digest
from prunesid.stages.shard import WHOLE, Shard
from prunesid.stages.source import Runtime, Source
from prunesid.study.arm import Arm
from prunesid.study.asked_rows import AskedRow


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of a benchmark's shard.

    asks        {name: what is asked of which image}, each once
    vectors     {encoder: {name: (C,)}}, see `prunesid.asking`
    text_tower  digest of the text tower that the model was loaded with, None without one
    """

    asks: Mapping[str, Ask]
    vectors: Mapping[str, Mapping[str, Tensor]]
    text_tower: str | None

    def encoder(self, arm: Arm) -> str:
        """CLIP or EMBEDDINGS, by which an arm chooses tokens."""
        (asked,) = arm.asked
        return encoder_of(asked, self.text_tower)

    def material(self, arm: Arm) -> dict[str, str | None]:
        """What determines the arm's relevance beside features and questions."""
        encoder = self.encoder(arm)
        return {"encoder": encoder, "text_tower": self.text_tower if encoder == CLIP else None}

    def rows(
        self, inputs: Mapping[str, Sequence[Medium]]
    ) -> tuple[dict[str, tuple[Medium, ...]], list[int]]:
        """The questions as inputs, and which of the images' rows each of their rows repeats."""
        return repeated(inputs, owners(self.asks))

    def asked_rows(self, inputs: Mapping[str, Sequence[Medium]]) -> tuple[AskedRow, ...]:
        """Which question each of these rows is of, for the pictures."""
        media = self.rows(inputs)[0]
        return tuple(
            AskedRow(ask.image, ask.context, ask.questions, media[name][0].rows[0])
            for name, ask in self.asks.items()
        )


def write_questions(
    source: Source, runtime: Runtime, arms: Sequence[Arm], features: Path, output: Path,
    shard: Shard = WHOLE,
) -> None:  # fmt: skip
    """Encode every question of a benchmark's shard once, for all arms that choose by it.

    features  those of the shard
    """
    inputs = read_head(features).inputs
    asks = asks_of(inputs, shard.questions(source.open().questions(), runtime.batch_size))
    # What an encoder reads of a question.
    texts = [
        (ask.context, tuple(medium.kind for medium in inputs[ask.image])) for ask in asks.values()
    ]
    places = {text: place for place, text in enumerate(dict.fromkeys(texts))}
    tower = dict(runtime.options).get(TEXT_TOWER)
    encoders = encoders_of((each for arm in arms for each in arm.asked), tower) if asks else ()
    tensors = {"place": torch.tensor([places[text] for text in texts], dtype=torch.int64)}
    if encoders:
        with device_slot(runtime.device) as device:
            path = model_path(runtime.model)
            adapter = load(path, device, runtime.dtype, **dict(runtime.options))
            for encoder in encoders:
                tensors[encoder] = torch.stack(
                    [adapter.question(encoder, *text) for text in places]
                )
    listed = json.dumps([[ask.image, ask.context, ask.questions] for ask in asks.values()])
    head = {"asks": listed, "text_tower": json.dumps(tower and tower_digest(str(tower)))}
    with atomic(output) as temporary:
        save_file(tensors, temporary, metadata=head)


def read_questions(path: Path) -> Questions:
    """What `write_questions` wrote."""
    with safe_open(path, "pt") as file:
        head = {name: json.loads(value) for name, value in file.metadata().items()}
        asks = {
            ask.name: ask
            for ask in (Ask(image, context, tuple(ids)) for image, context, ids in head["asks"])
        }
        place = file.get_tensor("place").tolist()
        found = {name: file.get_tensor(name) for name in file.keys() if name != "place"}  # noqa: SIM118
    vectors = {
        encoder: dict(zip(asks, (rows[row] for row in place), strict=True))
        for encoder, rows in found.items()
    }
    return Questions(asks, vectors, head["text_tower"])
