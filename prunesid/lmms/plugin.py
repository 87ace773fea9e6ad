"""An lmms-eval model for PruneSID and the other methods, one arm per run.

    lmms-eval --model prunesid --tasks pope --batch_size 8 \\
        --model_args pretrained=llava-hf/llava-1.5-7b-hf,method=prunesid,budget=64

lmms-eval's response cache keys on `model_args`, so they hold everything that tells arms apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from lmms_eval.api.instance import Instance
from lmms_eval.api.model import lmms
from PIL.Image import Image
from tqdm import tqdm

from prunesid.core.needs import Needs
from prunesid.core.questions import Answer, Question
from prunesid.core.record import Kept
from prunesid.families import load, options_of
from prunesid.generate.decoder_pass import rotary_axes
from prunesid.generate.decoding import Inputs
from prunesid.generate.engine import answer, answer_plainly
from prunesid.generate.late import answer_late
from prunesid.images.media import Clip, media_of
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import ImagePrompt, by_question, encoder_of, owners, prompts_of
from prunesid.lmms.tasks import image_names
from prunesid.methods.decoder import DecoderShape, plan
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.registry import DECODER, ENCODER, FEATURES, METHODS, requirements, resolve


class PruneSID(lmms):
    """model_args:

    pretrained    folder or hub id of the model
    method        one of `prunesid.list_methods()`; without it, or as "vanilla", all tokens are
                  kept. Methods by image and question choose anew for every question
    budget        tokens kept per image, or for late methods the mean number that enter a layer of
                  the language model; needed with a method
    seed          seed of methods with random choices
    batch_size    images at a time (lmms-eval's --batch_size)
    dtype         float32, bfloat16 or float16
    device        cpu, cuda, ...; by default cuda if available
    share_prefix  true: an image is encoded and its prompt prefix run once for all its questions;
                  false: every question runs by itself with the model's own generate()

    Other arguments are parameters of the method and options of the model's family. By default
    images and questions are prepared as in the evaluation of the model's authors. ValueError,
    naming the choices, on anything else.
    """

    def __init__(
        self,
        pretrained: str,
        method: str | None = None,
        budget: int | None = None,
        seed: int = 0,
        batch_size: int | str = 1,
        max_batch_size: int | None = None,
        dtype: str = "float32",
        device: str | None = None,
        share_prefix: bool = True,
        **params: Any,
    ) -> None:
        super().__init__()
        if method == "vanilla":
            method = None
        if (method is None) != (budget is None):
            raise ValueError("method and budget go together; leave both out to keep all tokens")
        options = {name: params.pop(name) for name in options_of(pretrained) if name in params}
        if method is None and params:
            raise ValueError(f"{', '.join(params)}: parameters need a method")
        self.method, self.budget, self.seed = method, budget, seed
        self.params = resolve(method, **params) if method is not None else {}
        place = METHODS[method].place if method is not None else None
        self.late = place == DECODER
        if self.late and not share_prefix:
            raise ValueError(f"{method} runs inside the language model; leave share_prefix on")
        self.batch_size = int(batch_size)
        self.share_prefix = share_prefix
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        self.adapter = load(pretrained, device, dtype, **options)
        if self.late and budget is not None:
            # Check before the first question. If tokens depend on the image, take one that is just
            # too large to keep all.
            decoder, tokens = self.adapter.decoder, self.adapter.num_tokens or budget + 1
            shape = DecoderShape(len(decoder.layers), tokens, rotary_axes(decoder))
            plan(str(method), shape, budget, **self.params)
        self.encoder: str | None = None
        if method is not None and place == FEATURES:
            for asked in requirements(method, **self.params).relevance:
                self.encoder = encoder_of(asked, self.adapter.text_tower)
        self.plans = None
        if method is not None and place == ENCODER and budget is not None:
            self.plans = self.adapter.plans(method, budget, self.params)

    def generate_until(self, requests: list[Instance]) -> list[str]:
        """Answers in the order of the requests, each on any number of images or clips."""
        texts = [""] * len(requests)
        tasks: dict[tuple[str, str], list[int]] = {}
        for place, request in enumerate(requests):
            tasks.setdefault((request.args[4], request.args[5]), []).append(place)
        with tqdm(total=len(requests), unit="question", desc="Answering") as bar:
            for (task, split), places in tasks.items():
                docs = self.task_dict[task][split]
                given = [requests[place].args for place in places]
                images = image_names(docs, [args[3] for args in given], given[0][2])
                questions = [
                    Question(str(place), image, args[0], args[1])
                    for place, image, args in zip(places, images, given, strict=True)
                ]
                run = self._shared if self.share_prefix else self._one_by_one
                for question, text in run(questions, requests, docs, bar):
                    texts[int(question.id)] = text
        return texts

    def _shared(
        self, questions: Sequence[Question], requests: list[Instance], docs: Any, bar: tqdm
    ) -> list[tuple[Question, str]]:
        members: dict[str, list[Question]] = {}
        for question in questions:
            members.setdefault(question.image_id, []).append(question)
        names, answered = list(members), []
        for start in range(0, len(names), self.batch_size):
            batch = names[start : start + self.batch_size]
            asked = [question for name in batch for question in members[name]]
            shown = {name: _media(members[name][0], requests, docs) for name in batch}
            kept, inputs, attention = self._kept(shown, asked)
            if self.encoder is not None:
                asked = by_question(asked)
            answers = self._answer(kept, inputs, attention, asked, bar)
            answered += [(each, found.answer) for each, found in zip(asked, answers, strict=True)]
        return answered

    def _answer(
        self, kept: Kept, inputs: Inputs, attention: torch.Tensor | None,
        asked: Sequence[Question], bar: tqdm,
    ) -> list[Answer]:  # fmt: skip
        given: dict[str, Any] = {"batch_size": self.batch_size, "progress": bar.update}
        if not self.late:
            return answer(self.adapter, kept, inputs, asked, **given)
        return answer_late(
            self.adapter, kept, inputs, asked, str(self.method), budget=self.budget,
            params=self.params, cls_attention=attention, **given,
        ).answers  # fmt: skip

    def _one_by_one(
        self, questions: Sequence[Question], requests: list[Instance], docs: Any, bar: tqdm
    ) -> list[tuple[Question, str]]:
        answered = []
        for question in questions:
            shown = {question.image_id: _media(question, requests, docs)}
            kept, inputs, _ = self._kept(shown, [question])
            (media,) = inputs.values()
            answered.append((question, answer_plainly(self.adapter, kept, media, question)))
            bar.update()
        return answered

    def _kept(
        self, shown: Mapping[str, Sequence[Image | Clip]], questions: Sequence[Question]
    ) -> tuple[Kept, Inputs, torch.Tensor | None]:
        """The tokens kept of the inputs' media, the inputs, and the CLS attention if needed.

        Inputs are what is shown, or the questions if the method chooses by image and question.
        """
        whose = [name for name, media in shown.items() for _ in media]
        prompts = prompts_of(shown, questions) if self.encoder is not None else {}
        names = prompts or shown
        if not whose:
            return Kept.nothing(), dict.fromkeys(names, ()), None
        inputs = self.adapter.preprocess([medium for media in shown.values() for medium in media])
        if self.plans is not None:
            kept, blank = self.adapter.reduce(inputs, self.plans, whose)
            return kept, {name: blank.inputs.get(name, ()) for name in shown}, None
        early = self.method is not None and not self.late
        needs = Needs()
        if self.method is not None:
            asked = requirements if self.late else requirements_in_crops
            needs = asked(self.method, **self.params)
        records = self.adapter.encode(inputs, needs, whose)
        if self.encoder is not None:
            records = self._asked(records, prompts)
        if early and self.budget is not None:
            kept = records.compress(
                str(self.method), budget=self.budget, seed=self.seed, **self.params
            )
        else:
            kept = records.all_tokens()
        attention = None
        if self.late and needs.last_cls_attention:
            attention = records.gather(kept.index, "last_cls_attention")
        return kept, {name: records.inputs.get(name, ()) for name in names}, attention

    def _asked(self, records: ImageRecords, prompts: Mapping[str, ImagePrompt]) -> ImageRecords:
        """The records of the questions that have visuals."""
        seen = {name: prompt for name, prompt in prompts.items() if prompt.image in records.inputs}
        vectors = {
            name: self.adapter.question(
                str(self.encoder), prompt.context, [m.kind for m in records.inputs[prompt.image]]
            )
            for name, prompt in seen.items()
        }
        return records.asked(owners(seen), vectors, str(self.encoder))

    def loglikelihood(self, requests: list[Instance]) -> list[tuple[float, bool]]:
        raise NotImplementedError("the model prunesid answers generate_until tasks only")

    def generate_until_multi_round(self, requests: list[Instance]) -> list[str]:
        raise NotImplementedError("the model prunesid answers single-round questions only")


def _media(question: Question, requests: list[Instance], docs: Any) -> tuple[Image | Clip, ...]:
    arguments = requests[int(question.id)].args
    return media_of(arguments[2](docs[arguments[3]]))
