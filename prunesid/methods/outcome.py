"""Checks of what a method returns, for all images of a batch at once."""

from __future__ import annotations

from prunesid.core.delayed import Tensor, torch
from prunesid.core.faults import MethodError
from prunesid.core.record import Kept, VisionRecord


def check_form(kept: object, record: VisionRecord) -> None:
    """MethodError unless `kept` is a `Kept` with the record's shapes, dtypes and device.

    No values are read.
    """
    if not isinstance(kept, Kept):
        raise MethodError(f"it returned a {type(kept).__name__}, not a Kept")
    rows = (len(record), kept.index.shape[-1] if kept.index.ndim else 0)
    device = record.features.device
    for name, tensor, shape, dtype in (
        ("tokens", kept.tokens, (*rows, record.tokens.shape[2]), record.features.dtype),
        ("index", kept.index, rows, torch.int64),
        ("count", kept.count, rows[:1], torch.int64),
    ):
        if (tuple(tensor.shape), tensor.dtype, tensor.device) != (shape, dtype, device):
            raise MethodError(
                f"its {name} are {form(tensor)} on {tensor.device}, not {shape} of "
                f"{str(dtype).removeprefix('torch.')} on {device}"
                + (" (tokens are made of VisionRecord.tokens)" if name == "tokens" else "")
            )


def form(tensor: Tensor) -> str:
    """A tensor's shape and dtype in words."""
    return f"{tuple(tensor.shape)} of {str(tensor.dtype).removeprefix('torch.')}"


def check_kept(
    kept: Kept, sizes: Tensor, least: Tensor, most: Tensor, patches: Tensor | None = None
) -> None:
    """MethodError for the first image with tokens that no method may keep.

    sizes        (B,) int64 patches of each image
    least, most  (B,) int64 bounds of the number of tokens
    patches      (B, T, D + X) `VisionRecord.tokens`, to check that a token with an index equals
                 that patch; None: not checked

    Waits for the device once.
    """
    index, real = kept.index, kept.mask
    own = real & (index >= 0)
    listed = index.masked_fill(~own, -1).sort(dim=1).values
    same = own
    if patches is not None and index.shape[1]:
        at = index.clamp(min=0, max=patches.shape[1] - 1)
        copies = patches.gather(1, at[:, :, None].expand(-1, -1, patches.shape[2]))
        same = (kept.tokens == copies).all(dim=2)
    wrong = torch.stack(
        [
            (kept.count < least) | (kept.count > most),
            (index.masked_fill(~own, 0) >= sizes[:, None]).any(dim=1),
            ((listed[:, 1:] == listed[:, :-1]) & (listed[:, 1:] >= 0)).any(dim=1),
            ~kept.tokens.isfinite().all(dim=2).all(dim=1),
            (own & ~same).any(dim=1),
            (~real & (index != -1)).any(dim=1) | (real & (index < -1)).any(dim=1),
        ]
    )
    if not bool(wrong.any()):
        return
    row = int(wrong.any(dim=0).nonzero()[0])
    number, count = int(wrong[:, row].nonzero()[0]), int(kept.count[row])
    low, high, size = int(least[row]), int(most[row]), int(sizes[row])
    wanted = f"{low}" if low == high else f"{low} to {high}"
    raise MethodError(
        (
            f"it keeps {count} tokens, not {wanted}",
            f"it keeps patch {int(index[row].max())} of an image whose patches are 0 to {size - 1}",
            "it keeps a patch twice",
            "its tokens hold NaN or infinite values, which the features do not",
            "a token with the index of a patch is not that patch; the index of others is -1",
            "an index below 0 is not -1, or padding has one",
        )[number],
        row,
    )
