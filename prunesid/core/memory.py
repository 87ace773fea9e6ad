"""Batches that are halved if they do not fit into a GPU's memory.

The borders between batches do not move; a batch that does not fit is processed in several parts. An
item's result does not depend on its batch, except in the last bits on a GPU: kernels for another
shape may round differently.
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
    most  the largest number of items to try at once; None until memory first runs out
    """

    def __init__(self, what: str) -> None:
        self.what = what
        self.most: int | None = None

    def run(
        self, batch: Sequence[Item], work: Callable[[Sequence[Item]], Result]
    ) -> Iterator[Result]:
        """Yield `work(batch)` or, if memory does not suffice, `work` of its parts in their order.

        Every halving is logged as a warning. torch.OutOfMemoryError if not even one item fits.
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
            # Here the error and its frames are gone, so nothing holds the attempt's tensors.
            gc.collect()
            if torch.cuda.is_initialized():
                torch.cuda.empty_cache()
            self.most = len(part) // 2
            log.warning(
                "%s: out of memory with %d at once; from here on %d at once, with the same results",
                self.what, len(part), self.most,
            )  # fmt: skip
