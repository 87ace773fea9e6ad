"""The contract of a model family, and what transformers' image-text-to-text models share.

Needs transformers >= 5.18 (`mm_encoder_outputs`).
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import torch
from torch import Tensor
from transformers import AutoModelForImageTextToText, AutoProcessor, DynamicCache
from transformers.modeling_outputs import BaseModelOutputWithPooling

from prunesid.core.costs import Sizes, Transformer
from prunesid.core.faults import blamed
from prunesid.core.needs import NO_NEEDS, Needs
from prunesid.core.parameters import Param, Value, check_parameters
from prunesid.core.record import EMBEDDINGS, Kept
from prunesid.families.adapter import Crop, Entering, Prompt, around, positions_of
from prunesid.families.declared import encoder_refusal
from prunesid.families.inputs.conversations import (
    CHECKPOINT,
    CONVERSATIONS,
    PROBE,
    original_name,
    pieces,
)
from prunesid.families.towers.clip_text import ClipText
from prunesid.images.medium import IMAGE, VIDEO, row_names
from prunesid.images.records import ImageRecords
from prunesid.images.relevance import question_text, reading, unit_of_mean
from prunesid.methods.encoder import Plans, plans
from prunesid.methods.outcome import check_kept

if TYPE_CHECKING:
    from PIL.Image import Image

    from prunesid.families.inputs.images_and_clips import Media


class Adapter(ABC):
    """A model whose `forward` takes `mm_encoder_outputs`.

    Shapes: T visual tokens of width D, language model of width E, batches of B. A family sets the
    class attributes, and num_blocks and feature_block in `__init__`.
    """

    OPTIONS: ClassVar[Mapping[str, Param]] = {}
    """Choices of a user when loading a checkpoint."""
    CHAT_TEMPLATE: ClassVar[str | None] = None
    """Jinja template for checkpoints whose processor has none."""

    taken_as: ClassVar[Mapping[str, str]] = {}
    """Kind of medium -> the kind that the model takes it as, where that is another."""

    num_blocks: int
    """Blocks of the vision tower."""
    feature_block: int
    """0-based block whose output is the model's usual visual feature."""
    num_tokens: int | None = None
    """Visual tokens of an image before compression; None if they depend on its size."""
    most_crops: int = 1
    """Crops of an image at the most, as far as that is known before there are any."""
    end_ids: frozenset[int]
    """Tokens that end an answer."""
    sizes: Sizes
    """Sizes that the cost of a prompt depends on."""
    decoder: Any
    """The language model's own decoder, for methods that drop tokens inside it."""
    placeholders: dict[str, int]
    """Kind of medium ("image", "video") -> the token that stands for it in a prompt."""
    text_tower: ClipText | None
    """CLIP's, which compares patches with a question; None if the model was loaded without."""

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        config = model.config
        self.options = self.checked(config.model_type, options)
        self.model = model.eval()
        self.processor = processor
        self.device, self.dtype = model.device, model.dtype
        self.decoder = model.model.language_model
        # A family whose tower is a plain transformer says so.
        self.sizes = Sizes(Transformer.decoder(config.get_text_config()), None, 0)
        ends = model.generation_config.eos_token_id
        self.end_ids = frozenset([ends] if isinstance(ends, int) else ends or ())
        kinds = {IMAGE: "image_token_id", VIDEO: "video_token_id"}
        found = {kind: getattr(config, name, None) for kind, name in kinds.items()}
        self.placeholders = {kind: i for kind, i in found.items() if i is not None}
        marks = ("vision_start_token_id", "vision_end_token_id")
        self.not_text = {
            *self.placeholders.values(),
            *(getattr(config, name, None) for name in marks),
        }
        # A family whose tower is CLIP's loads what its option names.
        self.text_tower = None
        # Every arm asks the same questions.
        self._prompts: dict[tuple[str, tuple[str, ...]], Prompt] = {}

    def with_newline(self, newline: str) -> Self:
        """The same model with another choice of its option `newline`, read where tokens enter."""
        found = copy.copy(self)
        chosen = {**self.options, "newline": newline}
        found.options = self.checked(self.model.config.model_type, chosen)
        return found

    @classmethod
    def checked(cls, model_type: str, options: Mapping[str, object]) -> dict[str, Value]:
        """All options of a checkpoint of this type; ValueError, naming the choices, for others."""
        return check_parameters(f"the model family {model_type}", cls.OPTIONS, options)

    @classmethod
    def load(
        cls, path: str | Path, device: torch.device, dtype: torch.dtype, **options: object
    ) -> Any:
        """Weights and processor from `path`; attention runs on SDPA.

        ValueError if tensors are missing, which transformers would fill with random numbers.
        """
        loaded: Any = AutoModelForImageTextToText.from_pretrained(
            path,
            dtype=dtype,
            attn_implementation="sdpa",
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
        model, info = loaded
        missing = sorted(info["missing_keys"])
        if missing:
            named = ", ".join(missing[:3]) + (", ..." if len(missing) > 3 else "")
            raise ValueError(f"{path}: the weights lack {len(missing)} tensors: {named}")
        return cls(model.to(device), cls.load_processor(path), **options)

    @staticmethod
    def load_processor(path: str | Path) -> Any:
        """The processor of the checkpoint at `path`."""
        return AutoProcessor.from_pretrained(path, trust_remote_code=False)

    def prompt(self, context: str, kinds: Sequence[str]) -> Prompt:
        """The token ids of `text`."""
        key = (context, tuple(kinds))
        if key not in self._prompts:
            self._prompts[key] = self._tokenize(context, kinds)
        return self._prompts[key]

    @cached_property
    def conv_template(self) -> str:
        """The conversation that questions are asked in, CHECKPOINT for the checkpoint's own.

        That of the option; without it `original_name`'s choice among the family's.
        """
        chosen, option = self.options.get("conv_template"), self.OPTIONS.get("conv_template")
        if chosen is not None or option is None:
            return str(chosen or CHECKPOINT)
        names = [str(name) for name in option.values() if name != CHECKPOINT]
        has_own = self.processor.chat_template or self.CHAT_TEMPLATE
        rendered = self._render([{"type": "text", "text": PROBE}]) if has_own else None
        return original_name(names, rendered, self.processor.tokenizer)

    def pictures(self, media: Media) -> list[Image]:
        """Images as RGB, padded where the family pads; its processor does the rest.

        ValueError if one is a clip.
        """
        if not all(hasattr(medium, "convert") for medium in media):
            raise ValueError("this model family takes images, not clips")
        return [medium.convert("RGB") for medium in media]  # type: ignore[union-attr]

    def text(self, context: str, kinds: Sequence[str]) -> str:
        """A question on media of these kinds in the model's conversation, ready for the answer.

        A mark stands where each medium goes: where the context has none, before it, a line each.
        """
        # Some tasks place the images themselves; then the text is taken as it stands.
        own = any(self._mark(kind) in context for kind in set(kinds))
        if self.conv_template == CHECKPOINT:
            shown = [] if own else [{"type": kind} for kind in kinds]
            return self._render([*shown, {"type": "text", "text": context}])
        marks = "" if own else "".join(f"{self._mark(kind)}\n" for kind in kinds)
        return CONVERSATIONS[self.conv_template].text(marks + context)

    def with_marks(self, text: str) -> str:
        """A prompt with what the model's processor puts around marks of media; here nothing."""
        return text

    def of_prompts(
        self, ids: Tensor, visual: Mapping[str, Any]
    ) -> tuple[Tensor, Mapping[str, Any]]:
        """Prompts (B, S) and visual inputs that the model's processor made, ready for `encode`.

        Every medium is one run of its kind's placeholder in the ids; the inputs tell media apart.
        """
        return ids, visual

    @abstractmethod
    def preprocess(self, media: Media) -> dict[str, Tensor]:
        """Images and clips -> the model's inputs, as its processor makes them of `pictures`."""

    @torch.no_grad()
    def encode(
        self,
        inputs: Mapping[str, Tensor],
        needs: Needs = NO_NEEDS,
        names: Sequence[str] | None = None,
    ) -> ImageRecords:
        """The model's inputs -> the records of what the vision tower gives.

        needs  optional fields of the records that are wanted; CLS always comes where there is one.
               In place of relevance, which is a question's, comes what it is computed from
               (`prunesid.images.relevance`)
        names  input that each medium belongs to, those of one input next to each other; without
               them every medium is an input named by its number, and random choices depend on the
               content of its features
        """
        return self.records(inputs, reading(needs, self.text_tower), names)

    @abstractmethod
    def records(
        self, inputs: Mapping[str, Tensor], needs: Needs, names: Sequence[str] | None
    ) -> ImageRecords:
        """As `encode`; `needs` name the fields that relevance is computed from, not relevance."""

    def _render(self, content: Sequence[Mapping[str, str]]) -> str:
        """One user message in the checkpoint's own chat template."""
        named = {} if self.processor.chat_template else {"chat_template": self.CHAT_TEMPLATE}
        return self.processor.apply_chat_template(
            [{"role": "user", "content": list(content)}],
            add_generation_prompt=True,
            tokenize=False,
            **named,
        )

    def _tokenize(self, context: str, kinds: Sequence[str]) -> Prompt:
        text, tokenizer = self.with_marks(self.text(context, kinds)), self.processor.tokenizer
        if self.conv_template == CHECKPOINT:
            ids = tokenizer(text)["input_ids"]
            named = {token: kind for kind, token in self.placeholders.items()}
            places = [place for place, token in enumerate(ids) if token in named]
            placed = [named[ids[place]] for place in places]
            edges = [-1, *places, len(ids)]
            texts = [ids[start + 1 : end] for start, end in pairwise(edges)]
        else:
            marks = {self._mark(kind): kind for kind in self.placeholders}
            texts, found = pieces(tokenizer, text, list(marks))
            placed = [marks[mark] for mark in found]
        if placed != list(kinds):
            raise ValueError(
                f"a prompt has to place its media ({', '.join(kinds) or 'none'}) once each; this "
                f"one places {len(placed)}: {text}"
            )
        return Prompt(tuple(map(tuple, texts)))

    def question(self, encoder: str, context: str, kinds: Sequence[str]) -> Tensor:
        """A question on media of these kinds as the vector (C,) that patches are compared with.

        encoder  CLIP or EMBEDDINGS, see `prunesid.images.relevance`

        ValueError for CLIP without a text tower.
        """
        if encoder == EMBEDDINGS:
            texts = self.prompt(context, kinds).texts
            return self.question_of([token for text in texts for token in text])
        if self.text_tower is None:
            raise ValueError(f"a question by {encoder!r} needs a text tower, and there is none")
        return self.text_tower.vector(question_text(context, map(self._mark, self.placeholders)))

    def question_of(self, ids: Sequence[int]) -> Tensor:
        """As `question` by EMBEDDINGS, from the ids of the whole prompt without placeholders."""
        text = [token for token in ids if token not in self.not_text]
        return unit_of_mean(self.words(torch.tensor(text, dtype=torch.int64)))

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of a text, without special tokens."""
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def _mark(self, kind: str) -> str:
        return self.processor.tokenizer.convert_ids_to_tokens(self.placeholders[kind])

    def plans(self, method: str, budget: int, params: Mapping[str, object]) -> Plans:
        """`methods.encoder.plans` for this model; ValueError if the family takes none."""
        refused = encoder_refusal(method, self.model.config.model_type)
        if refused is not None:
            raise ValueError(refused)
        return plans(method, self.sizes.encoding, budget, crops=self.most_crops, **params)

    def reduce(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None = None
    ) -> tuple[Kept, ImageRecords]:
        """The model's inputs -> what a pass by `plans` leaves, and the records without features.

        `names` as in `encode`; rows, inputs and sizes are those of its records, features zeros.
        ValueError if the family takes none, and, naming method and image, if tokens are NaN.
        """
        kept, records = self.reduced(inputs, plans, names)
        rows, device = row_names(records.inputs), kept.count.device
        sizes = torch.tensor(records.sizes, device=device)
        with blamed(lambda row: f"{plans.method} on image {rows[row or 0]!r}"):
            # Where all patches are left, a CLS token may come on top.
            check_kept(kept, sizes, torch.zeros_like(sizes), sizes + 1)
        return kept, records

    def reduced(
        self, inputs: Mapping[str, Tensor], plans: Plans, names: Sequence[str] | None
    ) -> tuple[Kept, ImageRecords]:
        """As `reduce`, of a family that takes methods inside the encoder."""
        raise ValueError(encoder_refusal(plans.method, self.model.config.model_type))

    def parts(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> list[Entering]:
        """As `enter`, in parts where a family has text within a medium."""
        return [self.enter(crops, layout)]

    @torch.no_grad()
    def project(self, tokens: Tensor) -> Tensor:
        """Pruned tokens (..., D) -> language model inputs (..., E), by the projector."""
        return self.model.model.multi_modal_projector(tokens.to(self.device, self.dtype))

    @abstractmethod
    def enter(self, crops: Sequence[Crop], layout: Mapping[str, Any]) -> Entering:
        """Kept tokens of a medium's crops -> what enters the language model.

        A medium of which everything is kept enters as the unmodified model has it.
        """

    def embed(self, ids: Tensor) -> Tensor:
        """Token ids (...) -> language model inputs (..., E).

        Where later layers add to tokens (..., E + X): first the E channels, then those that are
        added after the first layer, after the second and so on.
        """
        return self.words(ids)

    @torch.no_grad()
    def words(self, ids: Tensor) -> Tensor:
        """The language model's embeddings (..., E) of token ids (...)."""
        return self.model.get_input_embeddings()(ids.to(self.device))

    def new_cache(self) -> DynamicCache:
        """An empty KV cache, to be handed to `run`."""
        return DynamicCache(config=self.model.config)

    @torch.no_grad()
    def run(
        self,
        embeddings: Tensor,
        cache: DynamicCache,
        *,
        mask: Tensor | None = None,
        positions: Tensor | None = None,
    ) -> Tensor:
        """Decoder over what `embed` gives, (B, S, E), appending to `cache` -> final hidden states.

        `mask` is additive, (B, 1, S, cached + S); without it the block is causal. `positions` is
        (B, S) int64, or (3, B, S) for a decoder with three; without it they follow the cache's
        length.
        """
        return self.decoder(
            inputs_embeds=embeddings,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
        ).last_hidden_state

    @torch.no_grad()
    def logits(self, hidden: Tensor) -> Tensor:
        """Final hidden states (..., E) -> logits (..., vocabulary)."""
        return self.model.lm_head(hidden)

    def encoder_outputs(self, media: Mapping[str, Sequence[Tensor]]) -> dict[str, Any]:
        """{kind: embeddings (N, E) of each of its media} -> the model's `mm_encoder_outputs`."""
        own: dict[str, Any] = {kind: list(each) for kind, each in media.items()}
        return {k: BaseModelOutputWithPooling(pooler_output=each) for k, each in own.items()}

    def decode(self, ids: Sequence[int]) -> str:
        """Token ids -> text, special tokens left out."""
        return self.processor.tokenizer.decode(list(ids), skip_special_tokens=True)

    def generation_inputs(
        self, prompts: Sequence[tuple[Sequence[Entering], Prompt]]
    ) -> dict[str, Any]:
        """The inputs of the model's own `generate()` for B prompts with what enters of their media.

        Token ids (B, S) are padded on the left. Placeholders only hold the places, whatever the
        kind of the media.
        """
        rows, positions = [], []
        for media, prompt in prompts:
            texts = around(prompt.texts, media)
            ids = list(texts[0])
            for medium, text in zip(media, texts[1:], strict=True):
                ids += [*[self.placeholders[IMAGE]] * len(medium), *text]
            rows.append(ids)
            positions.append(positions_of(list(map(len, texts)), media)[0])
        shape = len(rows), max(map(len, rows))
        found = torch.full(shape, self.pad_id, device=self.device)
        mask = torch.zeros_like(found)
        placed = torch.zeros(3, *shape, dtype=torch.int64)
        for row, (ids, own) in enumerate(zip(rows, positions, strict=True)):
            found[row, -len(ids) :] = torch.tensor(ids, device=self.device)
            mask[row, -len(ids) :] = 1
            placed[:, row, -len(ids) :] = own
        given: dict[str, Any] = {"input_ids": found, "attention_mask": mask}
        shown = [medium for media, _ in prompts for medium in media]
        if shown:
            own_media = {IMAGE: [medium.embeddings for medium in shown]}
            given["mm_encoder_outputs"] = self.encoder_outputs(own_media)
        if any(medium.positions is not None for medium in shown):
            given["position_ids"] = placed.to(self.device)
        return given

    @property
    def pad_id(self) -> int:
        """A token for padding, which is masked: any that is no placeholder."""
        config = self.model.generation_config
        found = config.pad_token_id if config.pad_token_id is not None else config.eos_token_id
        return next(iter(found), 0) if isinstance(found, list) else found or 0

    @torch.no_grad()
    def generate(self, media: Sequence[Entering], prompt: Prompt, max_new_tokens: int) -> list[int]:
        """The model's own greedy `generate()`: ids of one answer."""
        given = self.generation_inputs([(media, prompt)])
        output = self.model.generate(**given, do_sample=False, max_new_tokens=max_new_tokens)
        return output[0, given["input_ids"].shape[1] :].tolist()


def one_row_each(tokens: Sequence[Tensor]) -> BaseModelOutputWithPooling:
    """Tokens (N, E) of media -> an encoder output with a row for each token.

    For models that flatten the first two dimensions. Beam search repeats rows of the first prompt
    by prompt, so no row may hold tokens of two prompts.
    """
    return BaseModelOutputWithPooling(pooler_output=torch.cat(list(tokens))[:, None])
