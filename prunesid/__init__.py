"""PruneSID: fewer visual tokens for vision-language models, and every ingredient of it ablated.

    import prunesid
    record = prunesid.VisionRecord(features)                      # (B, T, D) patch tokens
    kept = prunesid.compress(record, "prunesid", budget=64)       # kept.tokens: (B, 64, D)

    with prunesid.pruned(model, processor, budget=64):            # any supported transformers model
        model.generate(**inputs)

Needs torch alone; models, benchmarks and the pipeline live in subpackages with their own needs.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from prunesid.core.record import Kept, VisionRecord
    from prunesid.generate.pruned import prepare, prune, pruned
    from prunesid.images.patches import KeptMedium, draw
    from prunesid.methods.features import compress
    from prunesid.methods.registry import list_methods

__version__ = "0.1.0"
__all__ = [
    "Kept",
    "KeptMedium",
    "VisionRecord",
    "compress",
    "draw",
    "list_methods",
    "prepare",
    "prune",
    "pruned",
]

_MODULES = {
    "Kept": "prunesid.core.record",
    "KeptMedium": "prunesid.images.patches",
    "VisionRecord": "prunesid.core.record",
    "compress": "prunesid.methods.features",
    "draw": "prunesid.images.patches",
    "list_methods": "prunesid.methods.registry",
    "prepare": "prunesid.generate.pruned",
    "prune": "prunesid.generate.pruned",
    "pruned": "prunesid.generate.pruned",
}


def __getattr__(name: str) -> Any:
    """A public name, from its module, which is imported when the name is first asked for."""
    if name not in _MODULES:
        raise AttributeError(f"module 'prunesid' has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    """The public names, too, though they may not be imported yet."""
    return sorted({*globals(), *__all__})
