"""The ties to lmms-eval: its tasks give the questions, and its functions score the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from lmms_eval.models.registry_v2 import ModelManifest


def manifest() -> ModelManifest:
    """The model `prunesid` for lmms-eval, target of the entry-point group `lmms_eval.models`."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest("prunesid", simple_class_path=f"{__name__}.plugin.PruneSID")
