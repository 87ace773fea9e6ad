"""The file in which the tokens that an arm keeps lie in the store."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from safetensors import deserialize

from prunesid.core.files import digest
from prunesid.core.record import PLACE, Kept
from prunesid.images.records import ImageRecords
from prunesid.study.files.question_rows import AskedRow, asked_rows, to_metadata

_PLACE = f"info.{PLACE}"


def save_kept(
    kept: Kept, path: Path, *, copies: bool = True, asked: tuple[AskedRow, ...] = ()
) -> None:
    """Write index, count and info. Tokens are written only where they are no copy of a patch.

    copies  whether tokens with an index are the features of that patch; False for an arm with an
            encoder pass of its own
    asked   the question of each row, if rows are questions'
    """
    # Here and below: it imports torch, which digests do without.
    from safetensors.torch import save_file

    tensors = {"index": kept.index, "count": kept.count}
    tensors |= {f"info.{key}": value for key, value in kept.info.items()}
    made = kept.mask & (kept.index < 0)
    if not copies:
        tensors["tokens"] = kept.tokens
    elif bool(made.any()):
        tensors["made"] = kept.tokens[made]
    metadata = dict(to_metadata(asked)) if asked else None
    save_file({key: value.contiguous() for key, value in tensors.items()}, path, metadata)


def load_kept(path: Path, records: ImageRecords, sources: Sequence[int] | None = None) -> Kept:
    """The tokens that `save_kept` wrote, taken from the features of `records` (R rows).

    sources  the row of `records` that each row was chosen from; None: row by row
    """
    from safetensors.torch import load_file

    tensors = load_file(path)
    index, count = tensors["index"], tensors["count"]
    tokens = tensors["tokens"] if "tokens" in tensors else records.gather(index, sources=sources)
    kept = Kept(
        tokens,
        index,
        count,
        {k.removeprefix("info."): v for k, v in tensors.items() if k.startswith("info.")},
    )
    if "made" in tensors:
        tokens[kept.mask & (index < 0)] = tensors["made"]
    return kept


def kept_digest(path: Path) -> str:
    """Digest of the kept tokens and their places, whatever chose them.

    Equal digests mean equal answers.
    """
    contents = {name: tensor["data"] for name, tensor in deserialize(path.read_bytes())}
    return _digest(contents, by_question=bool(asked_rows(path)))


def whole_digest(sizes: Sequence[int], *, by_question: bool = False) -> str:
    """The `kept_digest` of keeping every patch of crops of these sizes in its place."""
    count = np.array(sizes, np.int64)
    places = np.arange(count.max())
    index = np.where(places < count[:, None], places, -1)
    return _digest({"index": index.tobytes(), "count": count.tobytes()}, by_question)


def _digest(tensors: Mapping[str, bytes], by_question: bool) -> str:
    contents: dict[str, str | bool] = {
        key: hashlib.sha256(value).hexdigest()
        for key, value in tensors.items()
        if not key.startswith("info.") or key == _PLACE
    }
    # The questions and their order are part of what identifies the features.
    return digest(contents | ({"by_question": True} if by_question else {}))
