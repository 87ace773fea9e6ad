"""The features that a vision tower computes (`VisionRecord`) and the tokens kept of them (`Kept`).

Shapes: B images or crops, T patch tokens of D channels, H attention heads of d channels, N kept
tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from prunesid.core.delayed import Tensor, torch

# The fields of a VisionRecord that are one tensor or None.
OPTIONAL = (
    "cls_attention",
    "cls",
    "keys",
    "projected",
    "joint",
    "relevance",
    "last_attention",
    "last_keys",
    "first_cls_attention",
    "last_cls_attention",
)

# These and the channels that tokens carry, which no method asks for.
_FIELDS = (*OPTIONAL, "carried")

# Encoders of a question that patches are compared with: CLIP's text tower, or the language model's
# own embeddings.
CLIP, EMBEDDINGS = "clip", "embeddings"

# Entry of `Kept.info`: (B, 2) rows and columns of an image of which all tokens are kept.
GRID = "grid"
# Entry of `Kept.info`: (B, N) int64 place of each token among all of its image or clip, or -1.
# Without this entry, tokens go crop after crop.
PLACE = "place"
# Entry of `Kept.info`, for methods whose merged tokens share patches: (B, N, M) int16 patches of
# the row that go into each merged token, padded with -1. The patch that it stands for comes first.
MEMBERS = "members"
# Index of the newline embedding after row 0 of an image's map; after row r it is NEWLINE - r.
NEWLINE = -2


@dataclass(frozen=True, eq=False)
class VisionRecord:
    """The vision features of a batch of images or crops; everything but `features` is optional.

    features       (B, T, D) patch tokens as they go to the projector, CLS removed; any float dtype
    carried        (B, T, X) further channels of each token, which stay with it but play no part in
                   choices: what later layers of the language model add to it. Excludes `cls`
    cls            (B, D) CLS token of the same block
    cls_attention  (B, H, T) attention from CLS to the patches in the block that made `features`
    keys           (B, H, T, d) keys of that block
    projected      (B, T, E) `features` after the projector, as the language model gets them
    joint          (B, T, C) patches in CLIP's space of images and texts: `features` after the
                   tower's post layer norm and CLIP's visual projection
    relevance      (B, T) cosine of each patch and the question (`prunesid.images.relevance`)
    relevance_by   CLIP if relevance compares `joint` with CLIP's text tower, EMBEDDINGS if it
                   compares `projected` with the language model's embeddings
    last_attention (B, T) attention from CLS to the patches in the tower's last block, all heads as
                   one: softmax over CLS and patches of q k / sqrt(D)
    last_keys      (B, T, D) keys of that block, the heads side by side
    first_cls_attention  (B, T) attention from CLS in the tower's first block, mean over heads
    last_cls_attention   (B, T) attention from CLS in the tower's last block, mean over heads
    hidden         {0-based block: (B, T, D)} outputs of other blocks, CLS removed
    grid           (rows, columns) of the patches in raster order, rows * columns = T
    image_ids      one name per image. Random choices depend on it and on nothing else in the batch.
                   Without it they depend on the content of the image's features

    Raises ValueError if the shapes do not fit together.
    """

    features: Tensor
    cls: Tensor | None = None
    cls_attention: Tensor | None = None
    keys: Tensor | None = None
    projected: Tensor | None = None
    joint: Tensor | None = None
    relevance: Tensor | None = None
    last_attention: Tensor | None = None
    last_keys: Tensor | None = None
    first_cls_attention: Tensor | None = None
    last_cls_attention: Tensor | None = None
    hidden: Mapping[int, Tensor] = field(default_factory=dict)
    grid: tuple[int, int] | None = None
    image_ids: tuple[str, ...] | None = None
    relevance_by: str = CLIP
    carried: Tensor | None = None

    def __post_init__(self) -> None:
        if self.features.ndim != 3 or 0 in self.features.shape:
            raise ValueError(
                f"features must be a non-empty (B, T, D) tensor, not {tuple(self.features.shape)}"
            )
        if not self.features.is_floating_point():
            raise ValueError(f"features must be floating point, not {self.features.dtype}")
        images, tokens, channels = self.features.shape
        self._expect("cls", self.cls, (images, channels))
        self._expect("cls_attention", self.cls_attention, (images, None, tokens))
        self._expect("keys", self.keys, (images, None, tokens, None))
        self._expect("projected", self.projected, (images, tokens, None))
        self._expect("carried", self.carried, (images, tokens, None))
        if self.carried is not None and self.cls is not None:
            raise ValueError("a CLS token has no channels to stand beside those that patches carry")
        self._expect("joint", self.joint, (images, tokens, None))
        self._expect("relevance", self.relevance, (images, tokens))
        self._expect("last_attention", self.last_attention, (images, tokens))
        self._expect("last_keys", self.last_keys, (images, tokens, None))
        for name in ("first_cls_attention", "last_cls_attention"):
            self._expect(name, getattr(self, name), (images, tokens))
        for block, tensor in self.hidden.items():
            self._expect(f"hidden[{block}]", tensor, (images, tokens, None))
        if self.grid is not None and self.grid[0] * self.grid[1] != tokens:
            raise ValueError(f"grid {self.grid} does not hold {tokens} tokens")
        if self.image_ids is not None and len(self.image_ids) != images:
            raise ValueError(f"{len(self.image_ids)} image_ids for {images} images")

    @staticmethod
    def _expect(name: str, tensor: Tensor | None, shape: tuple[int | None, ...]) -> None:
        if tensor is None:
            return
        fits = tensor.ndim == len(shape) and all(
            want in (None, got) for want, got in zip(shape, tensor.shape, strict=True)
        )
        if not fits:
            wanted = ", ".join("*" if size is None else str(size) for size in shape)
            raise ValueError(f"{name} must be ({wanted}), not {tuple(tensor.shape)}")

    def __len__(self) -> int:
        return self.features.shape[0]

    @property
    def num_tokens(self) -> int:
        return self.features.shape[1]

    @property
    def tokens(self) -> Tensor:
        """(B, T, D + X) features and carried channels, of which kept and merged tokens are made."""
        if self.carried is None:
            return self.features
        return torch.cat([self.features, self.carried], dim=2)

    def rows(self, images: slice | Sequence[int] | Tensor) -> VisionRecord:
        """The record of some of the images, in the given order; a slice gives views, not copies."""
        if isinstance(images, slice):
            numbers = range(*images.indices(len(self)))
        else:
            numbers = [int(i) for i in images]  # type: ignore[assignment]
            images = torch.as_tensor(numbers, dtype=torch.long, device=self.features.device)

        def pick(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor[images]

        return replace(
            self,
            features=self.features[images],
            hidden={block: tensor[images] for block, tensor in self.hidden.items()},
            image_ids=None if self.image_ids is None else tuple(self.image_ids[i] for i in numbers),
            **{name: pick(getattr(self, name)) for name in _FIELDS},
        )

    def take(
        self, images: Tensor, patches: Tensor, grid: tuple[int, int] | None = None
    ) -> VisionRecord:
        """The record of B sequences of T patches (B, T) int64 that may come from several images.

        A sequence has the CLS token and the name of its first patch's image.
        """
        device = self.features.device
        images, patches = images.to(device), patches.to(device)

        def pick(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor[images, patches]

        def pick_in_heads(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor[images, :, patches].transpose(1, 2)

        once = self.rows(images[:, 0].tolist())
        heads = ("cls_attention", "keys")
        found = {name: pick_in_heads(getattr(self, name)) for name in heads}
        found |= {
            name: pick(getattr(self, name)) for name in _FIELDS if name not in (*heads, "cls")
        }
        return replace(
            once,
            features=self.features[images, patches],
            hidden={block: pick(tensor) for block, tensor in self.hidden.items()},
            grid=grid,
            **found,
        )

    @staticmethod
    def cat(parts: Sequence[VisionRecord]) -> VisionRecord:
        """One record of several that have one grid and the same fields."""
        if len(parts) == 1:
            return parts[0]
        first = parts[0]

        def join(tensors: Sequence[Tensor | None]) -> Any:
            return None if tensors[0] is None else torch.cat(tensors)  # type: ignore[arg-type]

        named = first.image_ids is not None
        return replace(
            first,
            features=torch.cat([part.features for part in parts]),
            hidden={b: torch.cat([part.hidden[b] for part in parts]) for b in first.hidden},
            image_ids=tuple(i for part in parts for i in part.image_ids or ()) if named else None,
            **{name: join([getattr(part, name) for part in parts]) for name in _FIELDS},
        )

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> VisionRecord:
        """This record on another device, in another floating dtype, or both."""

        def move(tensor: Tensor | None) -> Any:
            return None if tensor is None else tensor.to(device=device, dtype=dtype)

        return replace(
            self,
            features=self.features.to(device=device, dtype=dtype),
            hidden={b: t.to(device=device, dtype=dtype) for b, t in self.hidden.items()},
            **{name: move(getattr(self, name)) for name in _FIELDS},
        )


@dataclass(frozen=True, eq=False)
class Kept:
    """The visual tokens that go on to the projector and the language model.

    tokens  (B, N, D + X) as `VisionRecord.tokens`, in their dtype; rows past `count` are zero
    index   (B, N) int64 source patch of each token. It is -1 for CLS, merged tokens and padding,
            NEWLINE - r for the newline embedding after row r of an image's map, whose token is zero
    count   (B,) int64 real tokens per image
    info    {name: (B, ...) tensor} facts about each image's reduction, such as tau or survivors
    """

    tokens: Tensor
    index: Tensor
    count: Tensor
    info: Mapping[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.tokens.shape[0]

    @property
    def mask(self) -> Tensor:
        """(B, N) bool, true for real tokens."""
        places = torch.arange(self.tokens.shape[1], device=self.count.device)
        return places < self.count[:, None]

    def to(self, device: torch.device | str) -> Kept:
        """These tokens on another device."""
        info = {name: value.to(device) for name, value in self.info.items()}
        return Kept(self.tokens.to(device), self.index.to(device), self.count.to(device), info)

    def rows(self, images: Tensor) -> Kept:
        """The tokens of some of the images (n,) int64, in the given order."""
        chosen = images.to(self.count.device)
        info = {name: value[chosen] for name, value in self.info.items()}
        return Kept(self.tokens[chosen], self.index[chosen], self.count[chosen], info)

    def split(self) -> list[Tensor]:
        """One (count, D + X) tensor per image, without padding."""
        return [row[:n] for row, n in zip(self.tokens, self.count.tolist(), strict=True)]

    def without(self, images: Tensor) -> Kept:
        """A copy that keeps no tokens of the `images` (B,) bool; the info of all images stays."""
        return Kept(
            tokens=self.tokens.masked_fill(images[:, None, None], 0),
            index=self.index.masked_fill(images[:, None], -1),
            count=self.count.masked_fill(images, 0),
            info=self.info,
        )

    def only(self, wanted: Tensor) -> Kept:
        """The tokens that are `wanted` (B, N) bool, in their order."""
        wanted = wanted & self.mask
        count = wanted.sum(dim=1)
        order = (~wanted).long().argsort(dim=1, stable=True)[:, : int(count.max())]
        real = torch.arange(order.shape[1], device=count.device) < count[:, None]
        tokens = self.tokens.gather(1, order[:, :, None].expand(-1, -1, self.tokens.shape[2]))
        return Kept(
            tokens=tokens.masked_fill(~real[:, :, None], 0),
            index=self.index.gather(1, order).masked_fill(~real, -1),
            count=count,
            info=self.info,
        )

    @staticmethod
    def nothing() -> Kept:
        """A `Kept` of no images."""
        empty = torch.zeros(0, 0, dtype=torch.int64)
        return Kept(empty[:, :, None].float(), empty, empty.sum(1))

    @staticmethod
    def cat(parts: Sequence[Kept]) -> Kept:
        """One `Kept` of several batches, padded to the widest.

        Info about patches, such as their groups, is padded if crops differ in size (`cat_padded`).
        A part may lack an info entry that others have. It gets NaN there, False if the entry is
        boolean, or -1 if it holds whole numbers per patch or token.
        """
        if len(parts) == 1:
            return parts[0]
        width = max(part.tokens.shape[1] for part in parts)

        def pad(tensor: Tensor, value: int) -> Tensor:
            shape = (tensor.shape[0], width - tensor.shape[1], *tensor.shape[2:])
            return torch.cat([tensor, tensor.new_full(shape, value)], dim=1)

        known = {name: value for part in parts for name, value in part.info.items()}

        def entry(name: str) -> Tensor:
            like = known[name]
            return cat_padded([p.info.get(name, _absent(like, len(p))) for p in parts])

        return Kept(
            tokens=torch.cat([pad(part.tokens, 0) for part in parts]),
            index=torch.cat([pad(part.index, -1) for part in parts]),
            count=torch.cat([part.count for part in parts]),
            info={name: entry(name) for name in known},
        )


def _absent(like: Tensor, images: int) -> Tensor:
    shape = images, *like.shape[1:]
    if like.dtype == torch.bool:
        return like.new_zeros(shape)
    if like.ndim >= 2 and not like.is_floating_point():
        return like.new_full(shape, -1)
    return like.new_full(shape, torch.nan, dtype=torch.float64)


def cat_padded(tensors: Sequence[Tensor]) -> Tensor:
    """One (B, ...) tensor of several batches, padded to the widest with -1, or False if boolean."""
    if len({tensor.shape[1:] for tensor in tensors}) == 1:
        return torch.cat(list(tensors))
    most = [max(sizes) for sizes in zip(*(tensor.shape[1:] for tensor in tensors), strict=True)]
    value = 0 if tensors[0].dtype == torch.bool else -1

    def padded(tensor: Tensor) -> Tensor:
        missing = [m - own for m, own in zip(most, tensor.shape[1:], strict=True)]
        # The last dimension comes first.
        pads = [side for size in reversed(missing) for side in (0, size)]
        return torch.nn.functional.pad(tensor, pads, value=value)

    return torch.cat([padded(tensor) for tensor in tensors])


def keep(
    record: VisionRecord,
    rank: Tensor,
    budget: Tensor,
    *,
    layout: Tensor | None = None,
    cls_token: bool = False,
    info: Mapping[str, Tensor] | None = None,
) -> Kept:
    """Keep the `budget` patches of lowest rank of each image, the last step of a selecting method.

    rank       (B, T) int64, a permutation of 0..T-1 per image; the lowest is kept first
    budget     (B,) int64. If it is T or more, all patches are kept in raster order, without CLS
    layout     (B, T) int64 keys that order the output; None: raster order
    cls_token  True puts the record's CLS token first; it takes one place of the budget
    info       the result's `info`
    """
    images, tokens, _ = record.features.shape
    device = record.features.device
    raster = torch.arange(tokens, device=device).expand(images, tokens)
    whole = (budget >= tokens)[:, None]
    layout = raster if layout is None else torch.where(whole, raster, layout)
    places = (budget - int(cls_token))[:, None]
    kept = whole | (rank < places)
    pool = record.tokens
    if cls_token:
        if record.cls is None:
            raise ValueError("cls_token=True needs a record with a CLS token; pass cls_token=False")
        pool = torch.cat([pool, record.cls[:, None].to(pool.dtype)], dim=1)
        layout = torch.cat([layout, layout.new_full((images, 1), -1)], dim=1)
        kept = torch.cat([kept, ~whole], dim=1)
    count = budget.clamp(max=tokens)
    width = int(count.max())
    last = torch.iinfo(layout.dtype).max
    order = layout.masked_fill(~kept, last).argsort(dim=1, stable=True)[:, :width]
    real = torch.arange(width, device=device) < count[:, None]
    picked = pool.gather(1, order[:, :, None].expand(-1, -1, pool.shape[2]))
    return Kept(
        tokens=picked.masked_fill(~real[:, :, None], 0),
        index=order.masked_fill(~real | (order == tokens), -1),
        count=count,
        info=dict(info or {}),
    )
