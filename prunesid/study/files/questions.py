"""The file of what is asked of each image, as `questions.write_questions` makes it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from safetensors import safe_open

from prunesid.core.delayed import Tensor
from prunesid.core.record import CLIP
from prunesid.images.medium import Medium, repeated
from prunesid.images.relevance import ImagePrompt, encoder_of, owners
from prunesid.study.files.question_rows import AskedRow

if TYPE_CHECKING:
    from prunesid.study.config.arm import Arm


@dataclass(frozen=True, eq=False)
class Questions:
    """The questions of a benchmark's shard.

    prompts     {name: the question and its image}, each once
    vectors     {encoder: {name: (C,)}}, see `prunesid.images.relevance`
    text_tower  digest of the text tower that the model was loaded with, None without one
    """

    prompts: Mapping[str, ImagePrompt]
    vectors: Mapping[str, Mapping[str, Tensor]]
    text_tower: str | None

    def encoder(self, arm: Arm) -> str:
        """The encoder by which an arm chooses tokens: CLIP or EMBEDDINGS."""
        (asked,) = arm.asked
        return encoder_of(asked, self.text_tower)

    def material(self, arm: Arm) -> dict[str, str | None]:
        """The key of the arm's relevance, without features and questions."""
        encoder = self.encoder(arm)
        return {"encoder": encoder, "text_tower": self.text_tower if encoder == CLIP else None}

    def rows(
        self, inputs: Mapping[str, Sequence[Medium]]
    ) -> tuple[dict[str, tuple[Medium, ...]], list[int]]:
        """The questions as inputs, and for each row of theirs the image row that it repeats."""
        return repeated(inputs, owners(self.prompts))

    def asked_rows(self, inputs: Mapping[str, Sequence[Medium]]) -> tuple[AskedRow, ...]:
        """The question of each of these rows, for the pictures."""
        media = self.rows(inputs)[0]
        return tuple(
            AskedRow(prompt.image, prompt.context, prompt.questions, media[name][0].rows[0])
            for name, prompt in self.prompts.items()
        )


def read_questions(path: Path) -> Questions:
    """The questions that `write_questions` wrote."""
    with safe_open(path, "pt") as file:
        head = {name: json.loads(value) for name, value in file.metadata().items()}
        prompts = {
            prompt.name: prompt
            for prompt in (
                ImagePrompt(image, context, tuple(ids)) for image, context, ids in head["asks"]
            )
        }
        place = file.get_tensor("place").tolist()
        found = {name: file.get_tensor(name) for name in file.keys() if name != "place"}  # noqa: SIM118
    vectors = {
        encoder: dict(zip(prompts, (rows[row] for row in place), strict=True))
        for encoder, rows in found.items()
    }
    return Questions(prompts, vectors, head["text_tower"])
