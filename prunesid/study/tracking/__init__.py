"""Results as runs of an experiment tracker, and the interface of its back ends.

    from prunesid.study.tracking import Settings
    from prunesid.study.tracking.publish import publish
    publication = publish(runs, Path("results/pocket/runs"), Settings(mode="offline"))
    print(publication.message())

Runs are made once, at the end, from result files. A back end is one file with a class that has the
members of `Tracker`; JSON files are always written.
"""

from __future__ import annotations

import dataclasses
import hashlib
import math
import numbers
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from prunesid.core.files import DIGEST_LENGTH, file_digest
from prunesid.core.registry import unknown

if TYPE_CHECKING:
    import pandas as pd

MODES = ("auto", "offline", "online", "disabled")
FILE_TYPES = (".csv", ".html", ".jpg", ".png")
PICTURE_TYPES = (".jpg", ".png")
MAX_PREDICTIONS = 1000
PICTURE = "picture"
BINS = 32
FAILED = "failed"


@dataclass(frozen=True)
class Histogram:
    """How many values fall between neighboring edges: counts (n,), edges (n + 1,)."""

    counts: tuple[int, ...]
    edges: tuple[float, ...]

    @classmethod
    def of(cls, values: Sequence[float], bins: int = BINS) -> Histogram:
        """The histogram of at least one value in equal bins from the smallest to the largest."""
        import numpy as np

        # What differs by rounding only, such as means over layers, has no range to cut into bins.
        rounded = [float(f"{value:.12g}") for value in values]
        counts, edges = np.histogram(rounded, bins=bins)
        return cls(tuple(counts.tolist()), tuple(edges.tolist()))


@dataclass(frozen=True)
class Picture:
    """An image file with a sentence about it."""

    path: Path
    caption: str


@dataclass(frozen=True)
class Run:
    """One arm of an ablation, or the comparison of all of them.

    group        the model and the ablation
    job_type     the stage
    config       the settings of the run, summary its results. Both hold what JSON can express:
                 NumPy scalars and paths are converted, NaN becomes null
    predictions  shown as a table of at most MAX_PREDICTIONS rows. A column PICTURE holds places in
                 `pictures`, or nothing, and is shown as pictures
    files        {title: path} of images (.png, .jpg) and tables (.csv, .html)
    environment  versions, commit and device. They are recorded but do not identify the run: the
                 same results under a new commit are no new run

    ValueError for an empty name or group, too many predictions, or a file of another type.
    """

    name: str
    group: str
    job_type: str
    tags: tuple[str, ...] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    summary: Mapping[str, Any] = field(default_factory=dict)
    predictions: pd.DataFrame | None = None
    files: Mapping[str, Path] = field(default_factory=dict)
    pictures: tuple[Picture, ...] = ()
    histograms: Mapping[str, Histogram] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or not self.group:
            raise ValueError("a run needs a name and a group")
        if self.predictions is not None and len(self.predictions) > MAX_PREDICTIONS:
            raise ValueError(
                f"{self.group}/{self.name}: {len(self.predictions)} predictions are more than the "
                f"{MAX_PREDICTIONS} that a run may carry; sample them first"
            )
        for title, path in self.files.items():
            if Path(path).suffix not in FILE_TYPES:
                raise ValueError(f"{title}: {unknown('file type', Path(path).suffix, FILE_TYPES)}")
        for picture in self.pictures:
            suffix = picture.path.suffix
            if suffix not in PICTURE_TYPES:
                raise ValueError(f"{picture.path}: {unknown('file type', suffix, PICTURE_TYPES)}")

    @cached_property
    def document(self) -> dict[str, Any]:
        """All that identifies the run, in JSON's types; files stand as digests of their bytes."""
        table = None
        if self.predictions is not None:
            rows = self.predictions.astype(object).to_numpy().tolist()
            table = {"columns": plain(list(self.predictions.columns)), "rows": plain(rows)}
        return {
            "name": self.name,
            "group": self.group,
            "job_type": self.job_type,
            "tags": list(self.tags),
            "config": plain(self.config),
            "summary": plain(self.summary),
            "predictions": table,
            "files": {title: file_digest(path) for title, path in self.files.items()},
            "pictures": [
                {"digest": file_digest(p.path), "caption": p.caption} for p in self.pictures
            ],
            "histograms": plain(self.histograms),
        }

    @cached_property
    def content(self) -> str:
        """The SHA-256 of the document, in hex."""
        text = dumps(self.document, sort_keys=True, separators=(",", ":"), allow_nan=False)
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def id(self) -> str:
        return self.content[:DIGEST_LENGTH]


@dataclass(frozen=True)
class Settings:
    """How to reach W&B, and whether to record in trackio, too.

    mode     'auto' is online if wandb finds credentials or WANDB_MODE asks for it, else offline
    timeout  seconds after which the upload of the first run is given up; each further run adds a
             few
    """

    mode: str = "auto"
    project: str = "prunesid"
    entity: str | None = None
    timeout: float = 60.0
    trackio: bool = False

    def __post_init__(self) -> None:
        if self.mode not in MODES:
            raise ValueError(unknown("W&B mode", self.mode, MODES))
        if not self.timeout > 0:
            raise ValueError(f"timeout: {self.timeout} is no positive number of seconds")

    @property
    def target(self) -> str:
        """The place of runs in W&B: 'entity/project', or the project alone."""
        return "/".join(part for part in (self.entity, self.project) if part)


@dataclass(frozen=True)
class Delivery:
    """The fate of a run at one back end.

    status  'written' (JSON), 'offline', 'online', or 'failed' with a reason
    place   file or folder, relative to the directory of the runs
    target  the project that the run was meant for
    """

    status: str
    place: str | None = None
    url: str | None = None
    reason: str | None = None
    target: str | None = None


class Tracker(Protocol):
    """A back end. Deliveries are by run id; directory is where all runs of a model are kept."""

    name: str

    def publish(
        self, runs: Sequence[Run], directory: Path, known: Mapping[str, Delivery]
    ) -> dict[str, Delivery]:
        """Deliver the runs that `known` does not hold yet; say what became of each."""

    def retract(self, delivery: Delivery, directory: Path) -> bool:
        """Take back a run whose place another has taken; False where it has left this machine."""

    def describe(self, deliveries: Sequence[Delivery], directory: Path) -> list[str]:
        """Lines for the end of a run: where the runs are, and the next command."""


def plain(value: Any) -> Any:
    """`value` in JSON's types: NumPy scalars, paths, dataclasses converted, NaN and NA to None."""
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted(plain(item) for item in value)
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, numbers.Integral):
        return int(value)
    if isinstance(value, numbers.Real):
        return float(value) if math.isfinite(value) else None
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if type(value).__name__ in ("NAType", "NaTType"):
        return None
    raise TypeError(f"no JSON for {type(value).__name__}: {value!r}")
