"""The cost of a prompt, by counting: tokens per layer, KV entries and multiply-adds.

A gated decoder layer with n tokens, width d and FFN width m takes 4 n d^2 + 2 n^2 d + 3 n d m
multiply-adds: four projections, scores and mixing over the full square, three FFN matrices. With
grouped queries the key and value projections are narrower: 2 n d (h_q + h_kv) replaces 4 n d^2,
where h is heads times head width. An encoder layer has two FFN matrices. Norms, biases,
activations, the patch embedding, the projector and the output layer are left out.

The cost of choosing tokens counts products of vectors and matrices, and decompositions. It leaves
out comparing, sorting, scaling and sums of attention. Each method registers its own formula.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from prunesid.core.record import EMBEDDINGS
from prunesid.core.rectangle import Box

# The steps from pixels to an answer whose time is measured (`prunesid.generate.stations`).
STATIONS = ("preprocess", "encode", "select", "project", "prefill", "decode")


@dataclass(frozen=True)
class Transformer:
    """The sizes that a transformer's cost depends on; `head_dim` is the width of one head."""

    layers: int
    width: int
    ffn: int
    heads: int
    kv_heads: int
    head_dim: int
    ffn_matrices: int

    @classmethod
    def decoder(cls, config: Any) -> Transformer:
        """The sizes in a Llama- or Qwen2-like configuration: gated FFN, perhaps grouped queries."""
        heads = config.num_attention_heads
        return cls(
            layers=config.num_hidden_layers,
            width=config.hidden_size,
            ffn=config.intermediate_size,
            heads=heads,
            kv_heads=getattr(config, "num_key_value_heads", None) or heads,
            head_dim=getattr(config, "head_dim", None) or config.hidden_size // heads,
            ffn_matrices=3,
        )

    @classmethod
    def encoder(cls, config: Any) -> Transformer:
        """The sizes in a CLIP-like vision configuration: plain FFN."""
        heads, width = config.num_attention_heads, config.hidden_size
        ffn = config.intermediate_size
        return cls(config.num_hidden_layers, width, ffn, heads, heads, width // heads, 2)

    def layer_macs(self, tokens: int, fed: int | None = None) -> int:
        """Multiply-adds of one layer that `tokens` tokens enter; `fed` (or all) enter its FFN."""
        fed = tokens if fed is None else fed
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        projections = 2 * tokens * self.width * (queries + keys)
        attention = 2 * tokens * tokens * queries
        return projections + attention + self.ffn_matrices * fed * self.width * self.ffn

    def macs(self, entering: Sequence[int]) -> int:
        """Multiply-adds of a pass in which `entering[i]` tokens enter layer i.

        ValueError unless there is one number per layer.
        """
        if len(entering) != self.layers:
            raise ValueError(f"{len(entering)} counts for {self.layers} layers")
        return sum(self.layer_macs(tokens) for tokens in entering)

    def kv_bytes_per_token(self, bytes_per_value: int = 2) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * bytes_per_value


@dataclass(frozen=True)
class Visual:
    """The sizes that the cost of choosing among an image's visual tokens depends on.

    tokens     T, patches of an image (or crop)
    width      D, width of a patch as it leaves the tower, and of the keys of all heads together
    head_dim   width of one head's key
    projected  E, width of a token after the projector
    """

    tokens: int
    width: int
    head_dim: int
    projected: int


@dataclass(frozen=True)
class TextTower:
    """CLIP's text tower.

    layers   sizes of its transformer
    segment  tokens of a segment of text
    joint    width of the joint space of images and texts
    """

    layers: Transformer
    segment: int
    joint: int


@dataclass(frozen=True)
class EncoderShape:
    """An encoder with a square of patches (and CLS), for one crop of an image or frame of a clip.

    layers  number of blocks of the encoder
    read    number of blocks that run until the features are read
    side    rows, and also columns, of its patches
    shown   the box of the patches that show the image; None: all patches do
    """

    layers: int
    read: int
    side: int
    shown: Box | None = None

    @property
    def box(self) -> Box:
        """The patches that a method has to choose from."""
        return self.shown or Box(0, 0, self.side, self.side)

    @property
    def tokens(self) -> int:
        """T, the number of patches in `box`."""
        return self.box.size

    @classmethod
    def of(cls, layers: int, patches: int, layer: int) -> EncoderShape:
        """The shape of an encoder of `layers` blocks and `patches` patches.

        layer  the hidden state that is read as features, counted as in the model's configuration: 0
               is the input of the first block, -1 the output of the last
        """
        return cls(layers, layer % (layers + 1), round(patches**0.5))


@dataclass(frozen=True)
class Sizes:
    """The sizes of a model.

    decoder         the language model
    encoder         the vision tower; None if it is no plain transformer, so that it has no formula
    encoder_tokens  tokens of one image (or crop) that enter the tower, CLS included
    encoding        the encoder's shape for methods that act in it; None if it has no such shape
    text            the text tower that the model was loaded with, or None
    """

    decoder: Transformer
    encoder: Transformer | None
    encoder_tokens: int
    encoding: EncoderShape | None = None
    text: TextTower | None = None

    def relevance_macs(self, visual: Visual, encoder: str) -> int:
        """Multiply-adds of comparing patches with an encoded question (`images.relevance`)."""
        if encoder == EMBEDDINGS:
            return visual.tokens * visual.projected
        return visual.tokens * self._text.joint * (visual.width + 1)

    def asking_macs(self, encoder: str) -> int:
        """Multiply-adds of encoding a question: one segment of the text tower, 0 for embeddings."""
        if encoder == EMBEDDINGS:
            return 0
        layers = self._text.layers
        return layers.macs([self._text.segment] * layers.layers) + layers.width * self._text.joint

    @property
    def _text(self) -> TextTower:
        if self.text is None:
            raise ValueError("the model was loaded without a text tower")
        return self.text

    def visual(self, tokens: int) -> Visual | None:
        """The sizes for an image of `tokens` patches; None if the tower has no formula."""
        if self.encoder is None:
            return None
        tower, projected = self.encoder, self.decoder.width
        return Visual(tokens, tower.width, tower.head_dim, projected)

    def to_json(self) -> dict[str, Any]:
        """The sizes as JSON values, which `from_json` reads."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Sizes:
        encoder, encoding, text = values["encoder"], values["encoding"], values.get("text")
        return cls(
            Transformer(**values["decoder"]),
            None if encoder is None else Transformer(**encoder),
            values["encoder_tokens"],
            None if encoding is None else EncoderShape(**encoding),
            None
            if text is None
            else TextTower(**{**text, "layers": Transformer(**text["layers"])}),
        )


@dataclass(frozen=True)
class Account:
    """The tokens and the cost of one prompt.

    entering        visual tokens that enter each layer of the language model
    kv_entries      visual tokens in the KV caches when decoding starts, summed over layers
    encoder_macs    multiply-adds of the vision tower
    selection_macs  multiply-adds of choosing tokens
    llm_macs        multiply-adds of the language model's prefill
    """

    entering: tuple[int, ...]
    kv_entries: int
    encoder_macs: int
    selection_macs: int
    llm_macs: int

    @property
    def input_tokens(self) -> int:
        """Visual tokens that enter the language model."""
        return self.entering[0]

    @property
    def mean_tokens(self) -> float:
        """Mean over layers of the visual tokens that enter a layer: the budget of late methods."""
        return sum(self.entering) / len(self.entering)

    @property
    def total_macs(self) -> int:
        return self.encoder_macs + self.selection_macs + self.llm_macs


def account(
    decoder: Transformer,
    entering: Sequence[int],
    text: int,
    *,
    cached: Sequence[int] | None = None,
    encoder: Transformer | None = None,
    encoder_tokens: int = 0,
    crops: int = 1,
    selection_macs: int = 0,
) -> Account:
    """The account of a prompt.

    entering        visual tokens that enter each layer of the decoder
    text            all other tokens of the prompt
    cached          visual tokens in each layer's cache; None: as many as enter
    encoder         the vision tower; None: its cost is not counted
    encoder_tokens  tokens of one crop in the vision tower, CLS included
    crops           number of crops that the tower encodes
    """
    counts = tuple(map(int, entering))
    tower = 0 if encoder is None else crops * encoder.macs([encoder_tokens] * encoder.layers)
    return Account(
        entering=counts,
        kv_entries=sum(map(int, counts if cached is None else cached)),
        encoder_macs=tower,
        selection_macs=selection_macs,
        llm_macs=decoder.macs([text + visual for visual in counts]),
    )
