"""Processors in parts: transformers' own of families that take clips need torchvision."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer


@dataclass(frozen=True, eq=False)
class Parts:
    """What the adapters need of transformers' processor, under the same names."""

    tokenizer: Any
    image_processor: Any
    chat_template: str | None

    def apply_chat_template(self, conversation: Any, **given: Any) -> Any:
        return self.tokenizer.apply_chat_template(
            conversation, **{"chat_template": self.chat_template, **given}
        )


def load_parts(path: str | Path) -> Parts:
    """From a folder or a hub id, from the files that transformers' own processor reads."""
    from transformers.processing_utils import ProcessorMixin

    tokenizer = AutoTokenizer.from_pretrained(path)
    template = ProcessorMixin.get_processor_dict(path)[0].get("chat_template")
    if isinstance(template, Mapping):
        template = template["default"]
    return Parts(
        tokenizer, AutoImageProcessor.from_pretrained(path), template or tokenizer.chat_template
    )
