"""The files of the pocket benchmarks for lmms-eval, rendered if they are missing.

The only code that a task's YAML can run before its data are read is `!function`, which takes an
attribute of a module. So this module has an attribute for every benchmark: the path of its file.
"""

from __future__ import annotations

import sys
from pathlib import Path

from prunesid.core.imports import closure, files_digest
from prunesid.lmms.tasks import DATA
from prunesid.pocket.benchmarks import BENCHMARKS, render


def __getattr__(name: str) -> str:
    if name not in BENCHMARKS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return str(DATA.get() or file_of(name))


def file_of(name: str) -> Path:
    """The benchmark's file, from a study below the working directory or else from the cache.

    The cache is Hugging Face's. There a benchmark is whole, and its file's name has a digest of the
    code that renders it.
    """
    from huggingface_hub.constants import HF_HOME

    own = Path("results") / "pocket" / "data" / f"{name}.parquet"
    if own.is_file():
        return own.resolve()
    code = files_digest(closure(["prunesid.pocket.benchmarks"]))
    cached = Path(HF_HOME) / "prunesid" / f"{name}-{code}.parquet"
    if not cached.is_file():
        print(f"Rendering the images of {name} into {cached}", file=sys.stderr, flush=True)
        render(name, cached)
    return cached
