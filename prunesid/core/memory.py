"""Batches that are halved where a GPU's memory does not suffice for them.

Where one batch ends and the next begins stays as it was; each is only done in several parts. What
is computed of an item does not depend on its batch, except that on a GPU the kernels for another
shape may round otherwise in the last bits.
"""

from __future__ import annotations

import gc
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from prunesid.core.delayed import torch

Item = TypeVar("Item")
Result = TypeVar("Result")

log = logging.getLogger(__name__)


class Halving:
    """The batches of one job; the size that fits is remembered from batch to batch.

    what  what is done in batches, for the message
    most  items at once that fit, as far as is known; None before any did not
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.most: int | None = None

    def run(
        self, batch: Sequence[Item], work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[Result]:
        """`work(batch)`; or that of its parts in their order, where memory did not suffice.

        A warning tells of every halving. torch.OutOfMemoryError where not even one item fits.
        """
        start = 0
        while start < len(batch):
            part = batch[start : start + (self.most or len(batch))]
            try:
                yield work(part)
                start += len(part)
                continue
            except torch.OutOfMemoryError:
                if len(part) == 1:
                    raise
            # Here, after the error and its frames are gone, nothing holds what the attempt made.
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            self.most = len(part) // 2
            log.warning(
                "%s: out of memory with %d at once; from here on %d at once, with the same results",
                self.what, len(part), self.most,
            )  # fmt: skip
