"""The sizes of a model, from its config.json alone, and what most families have in common.

A config.json leaves out the defaults of its class. Fields that it states are read as they stand;
transformers, which takes seconds to import, is asked for the rest alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from prunesid.core.costs import EncoderShape, Transformer

# COCO's usual size: the pixels of an image whose size decides its tokens.
USUAL_PIXELS = (640, 480)
# The fields that are sizes, and the largest that is one: counting weights builds the model.
SIZES = dict.fromkeys(("depth", "num_hidden_layers"), 1000) | dict.fromkeys(
    (
        *("image_size", "image_size_aux", "patch_size", "spatial_merge_size"),
        *("temporal_patch_size", "hidden_size", "embed_dim", "out_hidden_size", "head_dim"),
        *("intermediate_size", "num_attention_heads", "num_heads", "num_key_value_heads"),
        "vocab_size",
    ),
    10**6,
)
# They follow from others where they are null.
DERIVED = ("head_dim", "num_key_value_heads")


def configured(config: Mapping[str, Any]) -> Any:
    """transformers' configuration of a config.json; ValueError if it cannot be one."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import CONFIG_MAPPING

    try:
        return CONFIG_MAPPING[config["model_type"]].from_dict(dict(config))
    except (AttributeError, StrictDataclassError) as error:
        raise ValueError(f"config.json: {error}") from error


class Stated:
    """The fields of a config.json, or of a part of it, as attributes.

    What it leaves out, or states as null, is what `whole`, called once, makes of it. ValueError,
    naming the field below `place`, for a size that is none.
    """

    def __init__(
        self, fields: Mapping[str, Any], whole: Callable[[], Any], place: str = ""
    ) -> None:
        self._fields = fields
        self._whole = whole
        self._place = place

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        return self._checked(name, self._value(name))

    def height(self, name: str) -> int:
        """A size that may be stated as height and width."""
        value = self._value(name)
        return self._checked(name, value[0] if isinstance(value, list | tuple) else value)

    def _value(self, name: str) -> Any:
        value = self._fields.get(name)
        return getattr(self._complete, name) if value is None else value

    def _checked(self, name: str, value: Any) -> Any:
        most = SIZES.get(name)
        if most is None or (type(value) is int and 0 < value <= most):
            return value
        if value is None and name in DERIVED:
            return None
        wanted = f"a whole number from 1 to {most:,} is wanted"
        raise ValueError(f"{self._place}{name} is {value!r:.40}, where {wanted}")

    @cached_property
    def _complete(self) -> Any:
        return self._whole()

    def stated(self, name: str) -> Any:
        """A field that need not be one of transformers'; None if it is left out."""
        return self._fields.get(name)

    def part(self, name: str, flat: bool = False) -> Stated:
        """The configuration of a part; `flat` says that its fields may stand at the top level."""
        own, place = self._fields.get(name), f"{self._place}{name}."
        if own is None and flat:
            own = {key: value for key, value in self._fields.items() if key != "model_type"}
            place = self._place
        return Stated(own or {}, lambda: getattr(self._complete, name), place)


@dataclass(frozen=True)
class Geometry:
    """Sizes that the cost of a model depends on.

    tower         blocks of the vision tower
    tower_tokens  tokens of one crop (or frame) in the tower, CLS included
    crop_tokens   tokens of one crop that are pruned and enter the language model; newlines, which
                  enter beside them, are not counted
    width         width of the tokens that are pruned
    crops         crops of an image at the most, or what a clip is cut into along time
    usual_crops   of an image of COCO's usual size, 640 x 480 pixels
    fixed         whether every crop has `crop_tokens`; else they are those of a usual image
    extra_macs    multiply-adds per crop beside the tower: further towers, mergers
    decoder       layers of the language model
    vocabulary    its output layer
    axes          rotary positions of a token in the language model: one, or time, row and column
    encoding      sizes that methods inside the encoder plan by; None if the family takes none
    counted       counts the weights of the whole model
    """

    tower: Transformer
    tower_tokens: int
    crop_tokens: int
    width: int
    crops: int
    usual_crops: int
    fixed: bool
    extra_macs: int
    decoder: Transformer
    vocabulary: int
    axes: int = 1
    encoding: EncoderShape | None = None
    counted: Callable[[], int] = field(default=lambda: 0, compare=False, repr=False)

    @cached_property
    def parameters(self) -> int:
        """Weights of the whole model."""
        return self.counted()

    @property
    def tokens(self) -> int:
        """Visual tokens of an image with the most crops, or of a clip."""
        return self.crops * self.crop_tokens

    @property
    def usual_tokens(self) -> int:
        """Visual tokens of an image of the usual size, or of a clip."""
        return self.usual_crops * self.crop_tokens

    @property
    def crop_macs(self) -> int:
        """Multiply-adds of one crop before the language model."""
        return self.tower.macs([self.tower_tokens] * self.tower.layers) + self.extra_macs

    @property
    def token_macs(self) -> float:
        """Multiply-adds of a token that enters the language model, at the usual length."""
        tokens = self.usual_tokens
        return self.decoder.macs([tokens] * self.decoder.layers) / tokens


def patches_along(image: int, patch: int) -> int:
    """The patches along a side of an image; ValueError for an image that is smaller than one."""
    if image < patch:
        raise ValueError(f"patch_size {patch} exceeds image_size {image}")
    return image // patch


def vit(
    config: Stated,
    *,
    tiles: int = 0,
    frames: int = 1,
    pooling: int = 1,
    projects_first: bool = False,
    flat: bool = False,
    layer: object = None,
) -> Geometry:
    """LLaVA's kind: a CLIP or SigLIP tower, a projector of two layers, a decoder.

    An image is seen whole and, where it is large, as up to `tiles` parts of the tower's size.
    `projects_first` says that tokens are pruned after the projector; `pooling` divides the sides of
    their grid. `flat` as in `Stated.part`, of the decoder; `layer` is the tower's that is read,
    where the family names the field otherwise.
    """
    vision, text = config.part("vision_config"), config.part("text_config", flat)
    tower, decoder = Transformer.encoder(vision), Transformer.decoder(text)
    side = patches_along(vision.image_size, vision.patch_size)
    patches = side**2
    cls = vision.model_type == "clip_vision_model"
    usual = min(tiles, math.prod(math.ceil(edge / vision.image_size) for edge in USUAL_PIXELS))
    if cls and layer is None:
        layer = config.vision_feature_layer
    states = tower.layers + 1
    if isinstance(layer, int) and not (-states < layer < states and layer % states):
        raise ValueError(f"vision_feature_layer {layer} is no output of {tower.layers} blocks")
    return Geometry(
        tower=tower,
        tower_tokens=patches + cls,
        crop_tokens=math.ceil(side / pooling) ** 2,
        width=decoder.width if projects_first else tower.width,
        crops=frames * (1 + tiles),
        usual_crops=frames * (1 + usual),
        fixed=True,
        extra_macs=patches * (tower.width + decoder.width) * decoder.width,
        decoder=decoder,
        vocabulary=text.vocab_size,
        # Several layers are left to the adapter, which refuses them.
        encoding=EncoderShape.of(tower.layers, patches, layer) if isinstance(layer, int) else None,
    )
