"""The declaration of the optional `VisionRecord` fields that a method reads."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

from prunesid.core.delayed import Tensor
from prunesid.core.record import OPTIONAL, VisionRecord

# Relevance by CLIP if the model comes with a text tower, else by EMBEDDINGS.
QUESTION = "question"
ASKED = (QUESTION,)
# The type of each field that is not a flag, and its description in messages.
_KINDS = {"relevance": (tuple, "a tuple of encoders"), "layers": (frozenset, "a frozenset")}


@dataclass(frozen=True)
class Needs:
    """The optional fields of a VisionRecord that a method reads.

    relevance  encoders of the question that it accepts, sorted: QUESTION, `record.CLIP` or
               `record.EMBEDDINGS`; () for a method that reads no relevance
    """

    cls_attention: bool = False
    cls: bool = False
    keys: bool = False
    projected: bool = False
    joint: bool = False
    relevance: tuple[str, ...] = ()
    last_attention: bool = False
    last_keys: bool = False
    first_cls_attention: bool = False
    last_cls_attention: bool = False
    layers: frozenset[int] = field(default_factory=frozenset)

    def __post_init__(self) -> None:
        for each in fields(self):
            value = getattr(self, each.name)
            kind, word = _KINDS.get(each.name, (bool, "True or False"))
            if not isinstance(value, kind):
                raise ValueError(f"Needs.{each.name} is {word}, not {value!r}")

    def __or__(self, other: Needs) -> Needs:
        """All fields that one or the other reads."""
        named = {name: getattr(self, name) or getattr(other, name) for name in OPTIONAL}
        named["relevance"] = tuple(sorted({*self.relevance, *other.relevance}))
        return Needs(layers=self.layers | other.layers, **named)

    def of(self, record: VisionRecord) -> dict[str, Tensor | None]:
        """The needed fields by name; None for a field that the record lacks."""
        fields = {name: getattr(record, name) for name in OPTIONAL if getattr(self, name)}
        return fields | {f"hidden[{n}]": record.hidden.get(n) for n in sorted(self.layers)}


NO_NEEDS = Needs()
