"""Tables as the explorer's page reads them: scripts that hand over JSON, numbers packed."""

from __future__ import annotations

import base64
import json
import zlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEVEL = 9


def packed(values: NDArray[Any]) -> str:
    """Bytes of the values, little endian, as raw deflate in base64."""
    deflate = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
    return base64.b64encode(deflate.compress(data) + deflate.flush()).decode("ascii")


def numbers(values: NDArray[Any]) -> dict[str, Any]:
    """Whole numbers from 0 on, in as few bytes each as hold the largest: `of` and `bytes`."""
    largest = int(values.max(initial=0))
    kind = next(k for k in (np.uint8, np.uint16, np.uint32) if largest <= np.iinfo(k).max)
    return {"of": packed(values.astype(kind)), "bytes": kind().itemsize}


def coded(values: Iterable[Any]) -> dict[str, Any]:
    """A column of JSON's values: each once, in order of appearance, and `numbers` into them."""
    place: dict[Any, int] = {}
    of = [place.setdefault(value, len(place)) for value in values]
    return {"values": list(place), **numbers(np.array(of, np.int64))}


def write_script(folder: Path, name: str, document: Mapping[str, Any]) -> None:
    """Write `name`.js below `folder`: a page opened from a file can load scripts, but no JSON."""
    path = folder / f"{name}.js"
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    path.write_text(f"explorer.put({json.dumps(name)},{text});\n", encoding="utf-8")
