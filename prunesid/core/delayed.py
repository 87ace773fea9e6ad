"""torch and NumPy, imported when they are first used.

The import takes seconds. Reading a study, drawing its tables and listing what is left to do need
the declarations of methods and families but never a tensor. Modules that hold such declarations
take `torch` from here, and `Tensor` for their annotations. NumPy is optional for the library, so
its modules take `np` and `Array` from here, too.
"""

from __future__ import annotations

import importlib
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any


class _Delayed(ModuleType):
    """A module that is imported when one of its attributes is first read."""

    @cached_property
    def _module(self) -> ModuleType:
        return importlib.import_module(self.__name__)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)


if TYPE_CHECKING:
    import numpy
    import torch as torch
    from numpy.typing import NDArray
    from torch import Tensor as Tensor

    np = numpy
    Array = NDArray[Any]
else:
    np = _Delayed("numpy")
    torch = _Delayed("torch")

    class Array:
        """`numpy.ndarray` in annotations, which are never evaluated."""

    class Tensor:
        """`torch.Tensor` in annotations, which are never evaluated."""
