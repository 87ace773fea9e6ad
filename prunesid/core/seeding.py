"""Random choices that belong to an image: the same in any batch, order, process or thread count."""

from __future__ import annotations

import ctypes
import hashlib
from dataclasses import dataclass

import torch

from prunesid.core.record import VisionRecord


@dataclass(frozen=True)
class Draws:
    """Random numbers for the images of a record, from the seed and the image alone.

    The image is known by its `image_ids` entry, else by the bytes of its features, so that those
    who compare float16 with float32 or two devices should name their images.
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
