"""Questions for methods that choose by image and question, and the relevance of patches to them.

A question is a vector v (C,), and the relevance of a patch p to it is p · v / |p|. There are two
encoders of questions (`record.relevance_by`):

CLIP        p is the patch in CLIP's space of images and texts (`VisionRecord.joint`). v is the mean
            of the unit embeddings by CLIP's text tower of the question's segments of 77 tokens, so
            the relevance is a mean of cosines. The question is the user's text with its options,
            without the sentence on the answer's form (`question_text`). As in CDPruner's code
            (Theia-4869/CDPruner, commit ed9c12d: llava/model/llava_arch.py and
            llava/model/multimodal_encoder/clip_encoder.py).
EMBEDDINGS  p is the token as it enters the language model (`VisionRecord.projected`). v is the unit
            vector of the mean embedding of all text tokens of the prompt: conversation template,
            instructions and question. As in OpenVINO GenAI (openvinotoolkit/openvino.genai, pull
            request 3084, commit 0035869:
            src/cpp/src/visual_language/vision_token_pruning_processor.cpp and
            cdpruner/kernel_builder.cpp).

Tokens chosen this way belong to a question. So each question becomes an input with a name of its
own, and equal questions on one image become one input.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from prunesid.core.delayed import Tensor, torch
from prunesid.core.needs import QUESTION, Needs
from prunesid.core.record import CLIP, EMBEDDINGS
from prunesid.core.registry import unknown

if TYPE_CHECKING:
    from prunesid.core.questions import Question

TEXT_TOWER = "text_tower"
# Settings of a vision tower that must equal those of the CLIP model that the text tower is from.
ALIKE = ("hidden_size", "num_hidden_layers", "image_size", "patch_size")
# The requests for short answers in LLaVA's evaluation, and in lmms-eval, which follows it.
FORMS = (
    "\nAnswer the question using a single word or phrase.",
    "\nAnswer with the option's letter from the given choices directly.",
)


@dataclass(frozen=True)
class ImagePrompt:
    """A text (`Question.context`) on an image (`Question.image_id`), and its questions' ids."""

    image: str
    context: str
    questions: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """The name of the input that stands for the question."""
        return f"{self.image}\n{self.context}"


def prompts_of(images: Iterable[str], questions: Iterable[Question]) -> dict[str, ImagePrompt]:
    """{name: prompt}, equal prompts once, in the order of the images and then of the questions."""
    each: dict[str, dict[str, ImagePrompt]] = {image: {} for image in images}
    for question in questions:
        prompt = ImagePrompt(question.image_id, question.context)
        known = each[prompt.image].get(prompt.name, prompt)
        each[prompt.image][prompt.name] = replace(known, questions=(*known.questions, question.id))
    return {name: prompt for own in each.values() for name, prompt in own.items()}


def by_question(questions: Sequence[Question]) -> list[Question]:
    """These questions, each shown the input that stands for it."""
    return [replace(q, input=ImagePrompt(q.image_id, q.context).name) for q in questions]


def encoder_of(asked: str, text_tower: object) -> str:
    """CLIP or EMBEDDINGS: the encoder for what a method asks for (`Needs.relevance`).

    text_tower  the model's text tower, or the option that names it; None if it has none

    ValueError if CLIP is asked for without a text tower, or if `asked` is unknown.
    """
    if asked == QUESTION:
        return CLIP if text_tower else EMBEDDINGS
    if asked not in (CLIP, EMBEDDINGS):
        raise ValueError(unknown("relevance", asked, (QUESTION, CLIP, EMBEDDINGS)))
    if asked == CLIP and not text_tower:
        raise ValueError(
            f"relevance by {CLIP!r} needs CLIP's text tower: name it in the option {TEXT_TOWER} of "
            f"a model whose vision tower is CLIP's, or choose {EMBEDDINGS!r}"
        )
    return asked


def encoders_of(asked: Iterable[str], text_tower: object) -> tuple[str, ...]:
    """The result of `encoder_of` for each, without repetition, sorted."""
    return tuple(sorted({encoder_of(each, text_tower) for each in asked}))


def reading(needs: Needs, text_tower: object) -> Needs:
    """`needs` with the fields that relevance is computed from, instead of relevance."""
    encoders = encoders_of(needs.relevance, text_tower)
    return replace(
        needs,
        relevance=(),
        joint=needs.joint or CLIP in encoders,
        projected=needs.projected or EMBEDDINGS in encoders,
    )


def question_text(context: str, marks: Iterable[str] = ()) -> str:
    """The part of a prompt that CLIP's text tower reads: without FORMS and without `marks`."""
    for part in (*FORMS, *marks):
        context = context.replace(part, "")
    return context.strip()


def mean_of_units(embeddings: Tensor) -> Tensor:
    """Embeddings (S, C) -> the mean (C,) of their unit vectors, float32 on the CPU."""
    return torch.nn.functional.normalize(embeddings.double().cpu(), dim=1).mean(dim=0).float()


def unit_of_mean(embeddings: Tensor) -> Tensor:
    """Embeddings (S, C) -> the unit vector (C,) of their mean, float32 on the CPU; 0 if S is 0."""
    values = embeddings.double().cpu()
    return torch.nn.functional.normalize(values.sum(dim=0) / max(1, len(values)), dim=0).float()


def relevance(patches: Tensor, vectors: Sequence[Tensor]) -> Tensor:
    """Relevance (B, T) float64 of patches (B, T, C) to the question (C,) of each row."""
    rows = [
        torch.nn.functional.normalize(own.double(), dim=1) @ vector.to(own.device, torch.float64)
        for own, vector in zip(patches, vectors, strict=True)
    ]
    return torch.stack(rows)


def owners(prompts: Mapping[str, ImagePrompt]) -> dict[str, str]:
    """{name: the input that it is asked on}."""
    return {name: prompt.image for name, prompt in prompts.items()}
