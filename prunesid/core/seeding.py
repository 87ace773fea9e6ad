"""Random numbers per image, equal in any batch, order, process and number of threads."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass

from prunesid.core.delayed import torch
from prunesid.core.record import VisionRecord


@dataclass(frozen=True)
class Draws:
    """Random numbers for the images of a record, from the seed and the image alone.

    An image is identified by its entry in `image_ids`, else by the bytes of its features. Name the
    images to get equal draws in two dtypes or on two devices.
    """

    record: VisionRecord
    seeds: tuple[int, ...]

    def integer(self, image: int, purpose: str) -> int:
        """A 32-bit integer; each `purpose` has its own."""
        if self.record.image_ids is not None:
            name = self.record.image_ids[image]
        else:
            # ctypes, because Tensor.numpy() needs numpy and the library runs on torch alone.
            row = self.record.features[image].detach().cpu().contiguous()
            name = hashlib.sha256(ctypes.string_at(row.data_ptr(), row.nbytes)).hexdigest()
        text = f"{self.seeds[image]}|{purpose}|{name}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big")

    def generator(self, image: int, purpose: str) -> torch.Generator:
        """A CPU generator seeded with `integer`; draw on the CPU, then move."""
        return torch.Generator().manual_seed(self.integer(image, purpose))
