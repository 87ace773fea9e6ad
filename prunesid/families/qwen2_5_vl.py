"""Qwen2.5-VL (transformers' `Qwen2_5_VLForConditionalGeneration`).

As Qwen2-VL, but most blocks of its tower attend within windows, for which the tower reorders the
patches, and the positions of a clip's frames count the seconds between them.
"""

from __future__ import annotations

from typing import Any, ClassVar

from torch import Tensor

from prunesid.families import register
from prunesid.families.qwen2_vl import Qwen2VL


@register("qwen2_5_vl")
class Qwen25VL(Qwen2VL):
    """Adapter; see `prunesid.families.base.Adapter` for the shapes."""

    TIMED: ClassVar[bool] = True

    def __init__(self, model: Any, processor: Any, **options: object) -> None:
        super().__init__(model, processor, **options)
        if self.feature_block not in self.tower.fullatt_block_indexes:
            raise ValueError(
                f"the tower's last block, {self.feature_block}, must attend to the whole image, as "
                f"blocks {list(self.tower.fullatt_block_indexes)} do"
            )

    def tower_order(self, grids: Tensor) -> Tensor | None:
        from transformers.vision_utils import get_vision_window_index

        return get_vision_window_index(
            grids,
            spatial_merge_size=self.merge_size,
            window_size=self.tower.window_size,
            patch_size=self.tower.patch_size,
        )[0]
