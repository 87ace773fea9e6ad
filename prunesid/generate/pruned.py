"""Fewer visual tokens in a transformers model that is already loaded: one call, or one `with`.

    with prunesid.pruned(model, processor, method="prunesid", budget=64):
        output = model.generate(**inputs, max_new_tokens=32)

    inputs = prunesid.prune(model, processor, inputs, method="prunesid", budget=64)
    output = model.generate(**inputs, max_new_tokens=32)

The model is not changed: it takes the kept tokens through its own argument `mm_encoder_outputs`. A
method inside the language model needs the `with`: the decoder drops tokens within the block.
"""

from __future__ import annotations

import copy
import inspect
import json
import warnings
from collections import Counter, UserDict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import wraps
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prunesid.core.record import CLIP, Kept
from prunesid.families import adapt, modules_of
from prunesid.families.adapter import Entering, kept_crops, positions_of
from prunesid.generate.shortened_prompts import Run, Shortened, find_runs, shorten
from prunesid.images.medium import IMAGE, VIDEO, Medium
from prunesid.images.patches import KeptMedium, kept_media
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import encoder_of
from prunesid.methods.encoder import Plans
from prunesid.methods.features import requirements_in_crops
from prunesid.methods.registry import (
    DECODER,
    ENCODER,
    FEATURES,
    METHODS,
    method_at,
    requirements,
    resolve,
)

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.families.base import Adapter
    from prunesid.generate.late_forward import Prompts

TEXT = ("input_ids", "attention_mask")
# Inputs with one value per token, which stays with its token.
PER_TOKEN = ("token_type_ids", "mm_token_type_ids")
VISUAL = ("batch_num_images", "media_types", "second_per_grid_ts")
VISUAL_PREFIXES = ("pixel_", "image_", "video_")
REFUSED = {
    "labels": "pruned inputs are for inference, the vision side passes no gradients",
    "inputs_embeds": "the prompt has to be token ids with placeholders",
    "position_ids": "positions follow from the tokens that are left",
    "past_key_values": "a prompt that shows something starts with an empty cache",
    "vision_feature_layer": "features are those of the model's configuration",
    "vision_feature_select_strategy": "features are those of the model's configuration",
}


def prepare(
    model: Any,
    processor: Any,
    question: str,
    images: Sequence[Image] = (),
    *,
    clips: int = 0,
    options: Mapping[str, object] | None = None,
) -> tuple[str, list[Image]]:
    """The text and images of a question, prepared as the model's authors do.

    Both are for the model's processor: `processor(text=text, images=images, return_tensors="pt")`.
    The text is the prompt in the authors' conversation. It has a mark for every image and then for
    each of `clips`, unless the question places the marks itself. Images are padded as the authors
    pad them. `options` of the model's family change this.

    Studies and lmms-eval tokenize the text between media piece by piece, as the authors do. A
    processor tokenizes it at once, without a LLaMA tokenizer's space (one token) after each image.
    """
    adapter = adapt(model, processor, **(options or {}))
    text = adapter.text(question, [IMAGE] * len(images) + [VIDEO] * clips)
    return text, adapter.pictures(images)


class PrunedInputs(UserDict[str, Any]):
    """Arguments of `generate` and of the model itself, by name.

    kept  what of each image or clip is kept, in the order of the prompts (`prunesid.draw`)

    Beam search expands the encoder outputs in place, so each reading returns new ones.
    """

    def __init__(self, given: Mapping[str, Any], kept: Sequence[KeptMedium] = ()) -> None:
        super().__init__(given)
        self.kept = tuple(kept)

    def __getitem__(self, name: str) -> Any:
        value = super().__getitem__(name)
        if name != "mm_encoder_outputs":
            return value
        return {kind: replace(output) for kind, output in value.items()}


def prune(
    model: Any,
    processor: Any,
    inputs: Mapping[str, Any],
    method: str = "prunesid",
    budget: int = 64,
    *,
    seed: int = 0,
    options: Mapping[str, object] | None = None,
    question: str | Sequence[str] | None = None,
    **params: object,
) -> PrunedInputs:
    """Inputs with fewer visual tokens, made of those that the model's processor returned.

    inputs    a batch: input_ids (B, S) with all placeholders, attention_mask, pixel_values and
              whatever else the processor returns. A prompt shows any number of images or clips
    method    one of `prunesid.list_methods()` with its `params`, not inside the language model
    budget    tokens kept per image or clip. A medium with no more stays as it is. If all do, the
              inputs are returned as they are, with a warning
    seed      of methods with random choices
    options   those of the model family (`prunesid.families.options_of`)
    question  the question of all prompts or of each, for methods that choose by image and question
              with CLIP's text tower (the option `text_tower`). Without that tower such methods read
              the prompts themselves

    The result holds input_ids with one placeholder per token that enters, attention_mask,
    mm_encoder_outputs, the per-token values of the inputs, and position_ids if the model's are not
    just 0, 1, 2, ... ValueError, naming the choices, on unknown methods, parameters and options.
    Also on methods inside the language model, on placeholders that do not fit the media, on a
    question that is missing or not read, and on a model in training mode.
    """
    method_at(method, ENCODER, FEATURES)
    recipe = _recipe(model, processor, method, budget, seed, options, question, params)
    named = {name: value for name, value in inputs.items() if value is not None}
    strange = [
        name for name in named if not (name in (*TEXT, *PER_TOKEN, *REFUSED) or _visual(name))
    ]
    if strange:
        raise ValueError(
            f"{', '.join(strange)}: not returned by a processor; pass arguments of generate() to "
            "generate()"
        )
    found, _ = recipe.apply(named)
    return PrunedInputs(found, recipe.kept)


@contextmanager
def pruned(
    model: Any,
    processor: Any,
    method: str = "prunesid",
    budget: int = 64,
    *,
    seed: int = 0,
    options: Mapping[str, object] | None = None,
    question: str | Sequence[str] | None = None,
    kept: list[KeptMedium] | None = None,
    **params: object,
) -> Iterator[Any]:
    """Within the block, `model.generate(...)` and `model(...)` prune their inputs as `prune` does.

    All of `prunesid.list_methods()` work. A method inside the language model drops tokens of each
    prompt at its layers; `budget` is the mean over layers, per image or clip. `model(...)` then
    returns zeros as the final hidden states of dropped tokens, and no attentions.

    kept  a list that then holds what the latest call kept of each image or clip, in the order of
          the prompts (`prunesid.draw`). ValueError for a method inside the language model, which
          keeps other tokens in every layer

    `generate` returns the prompt as it was given, then the new tokens. Only this instance prunes.
    It is restored after the block, whatever happens in it. ValueError as `prune` raises it, before
    the block begins, and if the model is pruned already.
    """
    # A compiled module passes attributes on to the module that it wraps.
    target = getattr(model, "_orig_mod", model)
    if any(hasattr(vars(target).get(name), "_prunes") for name in ("generate", "forward")):
        raise ValueError("this model is pruned already; blocks of one model cannot be nested")
    recipe = _recipe(target, processor, method, budget, seed, options, question, params)
    if kept is not None:
        if METHODS[method].place == DECODER:
            raise ValueError(f"kept: {method} keeps other tokens in every layer; leave it out")
        recipe = replace(recipe, kept=kept)
    before = {name: vars(target)[name] for name in ("generate", "forward") if name in vars(target)}
    generate, forward = target.generate, target.forward
    try:
        target.generate = _pruning_generate(recipe, generate)
        target.forward = _pruning_forward(recipe, forward)
        yield model
    finally:
        for name in ("generate", "forward"):
            if name in before:
                setattr(target, name, before[name])
            else:
                vars(target).pop(name, None)


def _pruning_generate(recipe: _Recipe, generate: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(generate)
    def pruning(*args: Any, **kwargs: Any) -> Any:
        given = _by_name(generate, args, kwargs)
        if given.get("inputs") is not None:
            given["input_ids"] = given.pop("inputs")
        if not any(map(_visual, given)):
            return generate(*args, **kwargs)
        with recipe.applied(given) as short:
            width = short["input_ids"].shape[1]
            short = _with_limits(short, recipe.model, given["input_ids"].shape[1] - width)
            return _with_prompt(generate(**short), given["input_ids"], width)

    pruning._prunes = True  # type: ignore[attr-defined]
    return pruning


def _pruning_forward(recipe: _Recipe, forward: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(forward)
    def pruning(*args: Any, **kwargs: Any) -> Any:
        given = _by_name(forward, args, kwargs)
        if not any(map(_visual, given)):
            return forward(*args, **kwargs)
        with recipe.applied(given) as short:
            return forward(**short)

    pruning._prunes = True  # type: ignore[attr-defined]
    return pruning


def _by_name(
    call: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
) -> dict[str, Any]:
    """All arguments of a call that are not None, by name."""
    if args:
        names = list(inspect.signature(call).parameters)
        if len(args) > len(names):
            raise TypeError(f"{len(args)} positional arguments for {', '.join(names)}")
        kwargs = {**dict(zip(names, args, strict=False)), **kwargs}
    return {name: value for name, value in kwargs.items() if value is not None}


def _with_limits(given: dict[str, Any], model: Any, cut: int) -> dict[str, Any]:
    """Arguments of `generate` for prompts of `cut` tokens fewer, with total lengths adjusted.

    A limit is that of the call, else of the call's `generation_config`, else of the model's.
    """
    found, config = dict(given), given.get("generation_config")
    if config is not None:
        # A copy, as transformers makes one: the caller's object stays as it is.
        found["generation_config"] = config = copy.deepcopy(config)
    for limit in ("max_length", "min_length"):
        own = getattr(config, limit, None)
        value = getattr(model.generation_config, limit) if own is None else own
        if found.get(limit) is not None:
            found[limit] -= cut
        elif value is not None and config is not None:
            setattr(config, limit, value - cut)
        elif value is not None:
            found[limit] = value - cut
    return found


def _with_prompt(output: Any, prompt: Tensor, width: int) -> Any:
    """The output of `generate` with its prompt of `width` tokens replaced by the original one."""
    sequences = output if isinstance(output, Tensor) else output.sequences
    own = prompt.to(sequences.device)
    own = own.repeat_interleave(len(sequences) // len(own), dim=0)
    whole = torch.cat([own, sequences[:, width:]], dim=1)
    if isinstance(output, Tensor):
        return whole
    output.sequences = whole
    return output


def _visual(name: str) -> bool:
    return name in VISUAL or name.startswith(VISUAL_PREFIXES)


def _recipe(
    model: Any,
    processor: Any,
    method: str,
    budget: int,
    seed: int,
    options: Mapping[str, object] | None,
    question: str | Sequence[str] | None,
    params: Mapping[str, object],
) -> _Recipe:
    place = METHODS[method].place
    resolved = resolve(method, **params)
    if isinstance(budget, bool) or not isinstance(budget, int) or budget < 1:
        raise ValueError(f"budget must be a positive number of tokens, not {budget!r}")
    # A model that is not supported is told to be so, in whatever mode it is.
    modules_of(model.config.model_type)
    if any(module.training for module in model.modules()):
        raise ValueError("the model is in training mode; call model.eval() first")
    adapter = adapt(model, processor, **(options or {}))
    plans = adapter.plans(method, budget, resolved) if place == ENCODER else None
    asked = requirements(method, **resolved).relevance
    encoder = encoder_of(asked[0], adapter.text_tower) if asked else None
    if (question is not None) != (encoder == CLIP):
        raise ValueError(
            "question: CLIP's text tower reads what is asked as text; give it"
            if question is None
            else f"question: {method} does not read it"
            + (", but the prompts themselves" if encoder else "")
        )
    asking = None if encoder is None else _Asking(encoder, question)
    return _Recipe(model, adapter, method, budget, seed, resolved, plans, asking)


@dataclass(frozen=True)
class _Asking:
    """The encoder of questions by which tokens are chosen.

    question  the question, or None if it is read from the prompts
    """

    encoder: str
    question: str | Sequence[str] | None

    def vectors(self, adapter: Adapter, prompts: Sequence[list[int]]) -> list[Tensor]:
        """The question (C,) of each prompt; `prompts` are token ids without padding."""
        if self.question is None:
            return [adapter.question_of(prompt) for prompt in prompts]
        each = self.question
        texts = [each] * len(prompts) if isinstance(each, str) else list(each)
        if len(texts) != len(prompts):
            raise ValueError(f"question: {len(texts)} for {len(prompts)} prompts")
        return [adapter.question(self.encoder, text, ()) for text in texts]


@dataclass(frozen=True)
class _Recipe:
    """A method and budget for the inputs of one model.

    plans   those of a method inside the vision encoder
    asking  how a method reads the question, if it chooses by image and question
    widths  numbers of tokens of whole media, computed so far
    kept    what the latest call kept of its media
    """

    model: Any
    adapter: Adapter
    method: str
    budget: int
    seed: int
    params: Mapping[str, Any]
    plans: Plans | None = None
    asking: _Asking | None = None
    widths: dict[str, list[int]] = field(default_factory=dict)
    kept: list[KeptMedium] = field(default_factory=list)

    @contextmanager
    def applied(self, given: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
        """`given` with fewer visual tokens; or, within the block, a decoder that drops them."""
        # A compiled module also compiles what it calls; choosing tokens is not part of the graph.
        found, prompts = torch.compiler.disable(self.apply)(given)
        if prompts is None:
            yield found
            return
        from prunesid.generate.late_forward import dropping

        with dropping(self.adapter.decoder, prompts):
            yield found

    @torch.no_grad()
    def apply(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], Prompts | None]:
        """`given` with fewer visual tokens; inputs that are neither text nor visual stay.

        For a method inside the language model all tokens stay, encoded, and the second result tells
        the decoder what to drop.
        """
        refused = [f"{name}: {REFUSED[name]}" for name in REFUSED if given.get(name) is not None]
        if "input_ids" not in given and "inputs_embeds" not in given:
            refused.append("input_ids: missing")
        if refused:
            raise ValueError("; ".join(refused))
        visual = {name: value for name, value in given.items() if _visual(name)}
        self.kept.clear()
        if not visual:
            return dict(given), None
        ids, mask = given["input_ids"], self._mask(given)
        ids, own_inputs = self.adapter.of_prompts(ids, visual)
        records, reduced = self._read(own_inputs)
        whole = records.all_tokens()
        late = METHODS[self.method].place == DECODER
        widths: dict[str, list[int]] = {kind: [] for kind in self.adapter.placeholders}
        for medium in _media(records):
            widths[medium.kind] += self._widths(whole, medium)
        runs = find_runs(ids, mask, self.adapter.placeholders, widths)
        if self.asking is not None:
            records = self._asked(self.asking, records, whole, runs, ids, mask)
        kept = whole if late else reduced
        if kept is None:
            kept = records.compress(self.method, budget=self.budget, seed=self.seed, **self.params)
        entering: dict[str, list[tuple[Entering, Medium]]] = {k: [] for k in widths}
        for medium in _media(records):
            parts = self.adapter.parts(kept_crops(kept, medium), medium.layout)
            entering[medium.kind] += [(part, medium) for part in parts]
        owned = [entering[run.kind][run.number] for run in runs]
        each = [part for part, _ in owned]
        if not late:
            named_media = zip(_media(records), kept_media(kept, records), strict=True)
            by_rows = {medium.rows: own for medium, own in named_media}
            self.kept[:] = [by_rows[m.rows] for part, m in owned if not part.continues]
        found = {name: value for name, value in given.items() if name not in visual}
        counts = [len(medium) for medium in each]
        if not late and counts == [run.width for run in runs]:
            reason = f"budget {self.budget} covers the tokens of every image and clip"
            warnings.warn(f"nothing is pruned: {reason}", stacklevel=2)
            return dict(given), None
        short = shorten(mask, runs, counts)
        found["input_ids"] = short.take(ids, self.adapter.pad_id)
        found["attention_mask"] = short.mask.to(ids.device, torch.int64)
        for name in PER_TOKEN:
            if name in given:
                found[name] = short.take(given[name], 0)
        taken = self.adapter.taken_as
        for kind, other in taken.items():
            here = found["input_ids"] == self.adapter.placeholders[kind]
            found["input_ids"].masked_fill_(here, self.adapter.placeholders[other])
        embeddings: dict[str, list[Tensor]] = {}
        for run, given_as in zip(runs, each, strict=True):
            embeddings.setdefault(taken.get(run.kind, run.kind), []).append(given_as.embeddings)
        found["mm_encoder_outputs"] = self.adapter.encoder_outputs(embeddings)
        if any(medium.positions is not None for medium in each):
            found["position_ids"] = _positions(short, runs, each).to(ids.device)
        return found, self._late(records, runs, owned, found["input_ids"]) if late else None

    def _late(
        self,
        records: ImageRecords,
        runs: Sequence[Run],
        entering: Sequence[tuple[Entering, Medium]],
        ids: Tensor,
    ) -> Prompts:
        """The prompts of a method inside the language model; the budget is per medium."""
        from prunesid.generate.late_forward import late_prompts

        visual = torch.isin(ids, torch.tensor([*self.adapter.placeholders.values()]).to(ids))
        rows: list[list[tuple[Entering, Medium]]] = [[] for _ in ids]
        for run, part in zip(runs, entering, strict=True):
            rows[run.row].append(part)
        return late_prompts(
            self.adapter.decoder, self.method, self.budget, self.params, visual, rows, records
        )

    def _read(self, visual: Mapping[str, Any]) -> tuple[ImageRecords, Kept | None]:
        """The records of the tower, and the kept tokens of a method inside the vision encoder."""
        if self.plans is None:
            late = METHODS[self.method].place == DECODER
            needs = (requirements if late else requirements_in_crops)(self.method, **self.params)
            return self.adapter.encode(visual, needs), None
        kept, records = self.adapter.reduce(visual, self.plans)
        return records, kept

    def _asked(
        self,
        asking: _Asking,
        records: ImageRecords,
        whole: Kept,
        runs: list[Run],
        ids: Tensor,
        mask: Tensor,
    ) -> ImageRecords:
        """The records with the relevance of each medium to what its prompt asks."""
        prompts = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
        each = asking.vectors(self.adapter, prompts)
        rows = {(run.kind, run.number): run.row for run in runs}
        met: Counter[str] = Counter()
        vectors = {}
        for name, (medium,) in records.inputs.items():
            vectors[name] = each[rows[medium.kind, met[medium.kind]]]
            met[medium.kind] += len(self._widths(whole, medium))
        return records.asked({name: name for name in vectors}, vectors, asking.encoder)

    def _widths(self, whole: Kept, medium: Medium) -> list[int]:
        """Number of tokens of each part of a medium that keeps all of its tokens."""
        sizes = whole.count[list(medium.rows)].tolist()
        key = json.dumps([medium.kind, sizes, dict(medium.layout)], sort_keys=True)
        if key not in self.widths:
            parts = self.adapter.parts(kept_crops(whole, medium), medium.layout)
            self.widths[key] = list(map(len, parts))
        return self.widths[key]

    def _mask(self, given: Mapping[str, Any]) -> Tensor:
        ids = given["input_ids"]
        if "attention_mask" not in given:
            if len(ids) > 1:
                raise ValueError("attention_mask: needed for a batch of several prompts")
            return torch.ones_like(ids, dtype=torch.bool)
        mask = given["attention_mask"]
        if mask.shape != ids.shape:
            raise ValueError(
                f"attention_mask must be {tuple(ids.shape)} like input_ids, not {tuple(mask.shape)}"
            )
        return mask.bool()


def _media(records: ImageRecords) -> list[Medium]:
    return [medium for media in records.inputs.values() for medium in media]


def _positions(short: Shortened, runs: list[Run], entering: list[Entering]) -> Tensor:
    """(3, B, S') rotary positions, 0 for padding."""
    mask = short.mask
    positions = torch.zeros(3, *mask.shape, dtype=torch.int64)
    for row in range(len(mask)):
        own = [medium for run, medium in zip(runs, entering, strict=True) if run.row == row]
        found, _ = positions_of(short.texts(runs, row), own)
        positions[:, row, mask[row]] = found
    return positions
