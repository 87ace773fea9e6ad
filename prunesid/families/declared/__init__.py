"""Abilities of model families and sizes of their models, known without adapter or checkpoint.

A family is declared by one module of this package, which is quick to import; its adapter is the
module of the same name in `prunesid.families`:

    declare(Family("name", read, padding="none", prompt="vicuna_v1", clips=True))

A module of this package is found by itself; others call `declare` or name their module in the
entry-point group `prunesid.declared`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from prunesid.core.registry import Registry, unknown
from prunesid.families.declared.geometry import Geometry, Stated, configured
from prunesid.methods import encoder

__all__ = [
    "ANY_SIZE",
    "PLANNED",
    "Family",
    "Geometry",
    "Stated",
    "clip_families",
    "declare",
    "encoder_refusal",
    "families_choosing",
    "families_of",
    "family_of",
    "find",
    "geometry",
    "names",
    "refuse_without_clips",
]

# How an encoder gives way to a method: block by block as a plan says, or by taking images of any
# size, and so a smaller one as it is.
PLANNED, ANY_SIZE = "planned", "any size"


@dataclass(frozen=True)
class Family:
    """Facts about a family that the rest of the library asks for.

    name         model type, as `config.model_type` has it
    read         the sizes of a model; `frames` are those of a clip, None for images
    padding      how an image's aspect ratio is treated by default, in words
    prompt       the conversation that questions are asked in by default, in words
    clips        whether it takes clips
    choices      what an arm may choose otherwise than the model's options, of images in crops and
                 of clips (`prunesid.core.crops`): their values by name
    encoder      what methods inside the encoder can do: PLANNED, ANY_SIZE or, where None, nothing
    aliases      further model types of its checkpoints
    configuration  a config.json as transformers' configuration of the whole model
    build        such a configuration -> the model; None for transformers' own class
    processor    whether checkpoints hold a processor's settings; False where config.json has all
    """

    name: str
    read: Callable[[Stated, int | None], Geometry]
    padding: str
    prompt: str
    clips: bool = False
    choices: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    encoder: str | None = None
    aliases: tuple[str, ...] = ()
    configuration: Callable[[Mapping[str, Any]], Any] = configured
    build: Callable[[Any], Any] | None = None
    processor: bool = True

    def parameters(self, config: Mapping[str, Any]) -> int:
        """Weights of a model, counted without room for them (on the meta device)."""
        import torch
        from transformers import AutoModelForImageTextToText

        build = self.build or AutoModelForImageTextToText.from_config
        with torch.device("meta"):
            model = build(self.configuration(config))
        return sum(weight.numel() for weight in model.parameters())


_DECLARED: Registry[Family] = Registry("model family", __name__, group="prunesid.declared")


def declare(family: Family) -> Family:
    """Make a family known; ValueError if its name is taken."""
    return _DECLARED.register(family.name)(family)


def names() -> list[str]:
    """The declared families, sorted."""
    return _DECLARED.names()


def find(model_type: str) -> Family | None:
    """The family of checkpoints of this type, by its name or an alias; None for an unknown type."""
    known = map(_DECLARED.__getitem__, names())
    return next((each for each in known if model_type in (each.name, *each.aliases)), None)


def family_of(model_type: str) -> Family:
    """As `find`; ValueError, naming the choices, for an unknown type."""
    found = find(model_type)
    if found is None:
        raise ValueError(unknown("model family", model_type, names()))
    return found


def geometry(config: Mapping[str, Any], frames: int | None = None) -> Geometry | None:
    """The sizes that a config.json states; None for a model type that is not known.

    frames  of a clip; None for an image, or, of a family that takes clips first of all, a clip of
            `prunesid.images.media.FRAMES`

    ValueError if a family that takes no clips is asked for one.
    """
    model_type = str(config.get("model_type"))
    family = find(model_type)
    if family is None:
        return None
    if frames is not None:
        refuse_without_clips(model_type)
    found = family.read(Stated(config, lambda: family.configuration(config)), frames)
    return replace(found, counted=lambda: family.parameters(config))


def clip_families() -> list[str]:
    """The families that take clips."""
    return [name for name in names() if _DECLARED[name].clips]


def refuse_without_clips(model_type: str) -> None:
    """ValueError for a family that is known to take images alone."""
    family = find(model_type)
    if family is not None and not family.clips:
        raise ValueError(f"{model_type} models take no clips; {', '.join(clip_families())} do")


def families_of(method: str) -> tuple[str, ...]:
    """The families that a method inside the encoder runs on."""
    able = (PLANNED, ANY_SIZE) if encoder.shrinks(method) else (PLANNED,)
    return tuple(name for name in names() if _DECLARED[name].encoder in able)


def families_choosing(name: str, value: str) -> list[str]:
    """The families in which an arm may choose this value."""
    return [each for each in names() if value in _DECLARED[each].choices.get(name, ())]


def encoder_refusal(method: str, model_type: object) -> str | None:
    """The message for a model type that such a method does not run on; None if it does."""
    able, family = families_of(method), find(str(model_type))
    if family is not None and family.name in able:
        return None
    return (
        f"{method} acts inside the vision encoder, which is not supported for the model family "
        f"{model_type!r}. Families that it runs on: {', '.join(able)}."
    )
