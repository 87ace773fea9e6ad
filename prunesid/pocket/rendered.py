"""The files of the pocket benchmarks for lmms-eval, rendered where there are none yet.

A task's YAML can ask for nothing to be done before its data are read but for `!function`, which takes
an attribute of a module. So this module has one for every benchmark, which is the path of its file.
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
    """The benchmark as a study left it below the working directory; else whole, from the cache.

    The cache is Hugging Face's. A file there bears a digest of the code that renders it.
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
