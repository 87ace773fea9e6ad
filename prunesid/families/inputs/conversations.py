"""Conversation templates that the authors of a model ask it with, by the names of LLaVA's code.

lmms-eval calls them `conv_template` as well. They are those that the authors evaluate with
(haotian-liu/LLaVA, LLaVA-VL/LLaVA-NeXT, PKU-YuanGroup/Video-LLaVA, dvlab-research/MGM); the chat
templates of checkpoints in transformers' form have no system prompt.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prunesid.core.parameters import Param

VICUNA_V1, LLAVA_V1 = "vicuna_v1", "llava_v1"
CHATML_DIRECT, QWEN_1_5 = "chatml_direct", "qwen_1_5"
# The checkpoint's own chat template.
CHECKPOINT = "checkpoint"
# A question that no template has in its own words.
PROBE = "1234"


@dataclass(frozen=True)
class Conversation:
    """One question: the system prompt, and what stands around the user's message."""

    system: str
    start: str
    end: str

    def text(self, message: str) -> str:
        """The whole prompt, ready for the answer."""
        return f"{self.system}{self.start}{message}{self.end}"

    def is_form_of(self, rendered: str) -> bool:
        """Whether a chat template asks PROBE so, with or without the system prompt.

        White space does not count: templates of checkpoints differ in it from the authors' code.
        """
        bare = f"{self.start}{PROBE}{self.end}"
        return _dense(rendered) in (_dense(bare), _dense(self.text(PROBE)))


def _dense(text: str) -> str:
    return "".join(text.split())


def _vicuna(person: str) -> Conversation:
    system = (
        f"A chat between a curious {person} and an artificial intelligence assistant. "
        f"The assistant gives helpful, detailed, and polite answers to the {person}'s questions. "
    )
    return Conversation(system, "USER: ", " ASSISTANT:")


CONVERSATIONS = {
    VICUNA_V1: _vicuna("user"),
    # Of the same training, and what Video-LLaVA's evaluation on videos asks with.
    LLAVA_V1: _vicuna("human"),
    CHATML_DIRECT: Conversation(
        "<|im_start|>system\nAnswer the questions.<|im_end|>",
        "<|im_start|>user\n",
        "<|im_end|><|im_start|>assistant\n",
    ),
    QWEN_1_5: Conversation(
        "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n",
        "<|im_start|>user\n",
        "<|im_end|>\n<|im_start|>assistant\n",
    ),
}


def conv_template(*names: str) -> Param:
    """The option of a family with these conversations; None: `original_name`'s choice."""
    return Param(None, str, (*names, CHECKPOINT))


def original_name(names: Sequence[str], rendered: str | None, tokenizer: Any) -> str:
    """The first of the conversations that fits a checkpoint, as its authors ask it.

    rendered  PROBE by the checkpoint's own chat template; None if it has none, and all fit

    A conversation fits where the template is its form and the tokenizer knows every word of its
    system prompt. CHECKPOINT where none fits: a model of another conversation, or one that was
    trained without a system prompt and lacks its words (Pocket-LLaVA).
    """
    for name in names:
        found = CONVERSATIONS[name]
        fits = rendered is None or found.is_form_of(rendered)
        if fits and _knows(tokenizer, found.system):
            return name
    return CHECKPOINT


def _knows(tokenizer: Any, text: str) -> bool:
    unknown = tokenizer.unk_token_id
    return unknown is None or unknown not in tokenizer(text)["input_ids"]


def pieces(tokenizer: Any, text: str, marks: Sequence[str]) -> tuple[list[list[int]], list[str]]:
    """Token ids of what is between the marks, each piece tokenized by itself, and the marks found.

    So does the authors' code. The beginning-of-sequence token that the tokenizer puts before each
    piece stays only at the front; a LLaMA tokenizer's space before each piece stays everywhere.
    """
    parts = re.split(f"({'|'.join(map(re.escape, marks))})", text)
    start = tokenizer.bos_token_id
    found = [tokenizer(part)["input_ids"] for part in parts[::2]]
    later = [ids[1:] if ids[:1] == [start] else ids for ids in found[1:]]
    return [found[0], *later], parts[1::2]
