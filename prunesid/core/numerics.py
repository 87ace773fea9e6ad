"""Rounding and ranking that give an image the same tokens in any batch, thread count and device.

Everything is computed in float64. The last bits of linear algebra still differ between thread
counts, and they would decide ties: duplicated tokens have equal scores on paper and almost equal
ones in memory. So all values that are compared are first rounded to a grid. It is far coarser than
these errors and far finer than any difference that matters. Ties go to the lower index.

A grid also makes ties of its own, between values closer than a step. If n values over a range R are
all ranked, about n^2 / 2 * step / R pairs tie. The steps follow from that and from the errors:

* Cosines (`COSINE_GRID`). VisPruner ranks them 60 times over, and a step of 2^-30 changes about one
  image in 100; 2^-40 changes one in 100 000. The error of a product of 1024 terms is at most 1e-15.
* Probabilities and densities (`PROBABILITY_GRID`). Attention to one of thousands of tokens may be
  1e-6 and differ from the next by 1e-9, which is 2^-30. Sums over up to 32 heads remain exact.
* Everything else (`GRID`). The error of |V| is that of an eigenvector, 1e-12 and more. Among its
  576 values, one pair ties in some 1000 images, and it matters only at the end of its group's
  quota. Thresholds are compared with finer numbers. The gains of a determinantal point process are
  on this grid because it also shows when the rank of the features is exhausted. What is left then
  is rounding error, which a finer grid would take for a gain. Only the largest gain counts, so that
  one step in a million may tie.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import cache, partial
from types import ModuleType
from typing import Any

from prunesid.core.delayed import Tensor, torch

GRID = 2.0**-30
COSINE_GRID = 2.0**-40
PROBABILITY_GRID = 2.0**-48
# Number of channels from which on matrix products take most of the time of a choice.
MANY_CHANNELS = 2048
# Channels in a part of a float32 sum; an eighth of 4096 costs 8 % and makes errors 8 times smaller.
PART = 512
# Lengths of float32 rows whose products neither overflow nor underflow, by a wide margin.
FLOAT32_LENGTHS = (2.0**-40, 2.0**40)


def on_grid(values: Tensor, step: float = GRID) -> Tensor:
    """`values` (float64) rounded to multiples of `step`, a power of two; their sums are exact."""
    return (values * (1 / step)).round_().mul_(step)


def on_cpu(tensor: Tensor) -> bool:
    """Whether the tensor is on the CPU, where work is done image by image.

    There a call costs little, and waiting for a result nothing. On an accelerator the whole batch
    is processed at once, with as few waits for results as possible.
    """
    return tensor.device.type == "cpu"


@cache
def _has_numpy() -> bool:
    try:
        importlib.import_module("numpy")
    except ImportError:
        return False
    return True


def in_numpy(tensor: Tensor) -> bool:
    """Whether a choice of many small steps is made in NumPy, one image after another.

    True on the CPU if NumPy, which is optional, is installed: its calls cost a third of torch's.
    Otherwise torch processes the whole batch at once.
    """
    return on_cpu(tensor) and _has_numpy()


def per_image(function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
    """`function(batch)` of a (B, ...) tensor; on the CPU each image has the same bits as at B = 1.

    Matrix libraries choose their kernel by batch size and memory alignment. So on the CPU, where
    the work per image outweighs the call, each image gets a call and fresh memory of its own.
    """
    if not on_cpu(batch):
        return function(batch)
    return torch.cat([function(image.clone()[None]) for image in batch])


def gram(rows: Tensor) -> Tensor:
    """(B, T, T) products of all pairs of the (B, T, D) rows, float32 or float64.

    On one thread of a CPU, NumPy multiplies. It recognizes a matrix times its own transpose and
    computes only half of the products (BLAS's `syrk`). Call this function in `per_image`.
    """
    if not in_numpy(rows) or torch.get_num_threads() > 1:
        return rows @ rows.transpose(1, 2)
    with one_thread():
        products = [torch.from_numpy(matrix @ matrix.T) for matrix in rows.detach().numpy()]
    return products[0][None] if len(products) == 1 else torch.stack(products)


def float32_first(batch: Tensor) -> bool:
    """Whether a choice among tokens (B, T, D) is faster if it first uses products in float32.

    True on a CPU with NumPy and for many channels, where matrix products take most of the time.
    False if torch was told to multiply with fewer bits, or if tokens are float64, whose squares may
    be out of range.
    """
    precision = torch.backends.mkldnn.matmul.fp32_precision  # type: ignore[attr-defined]
    full = precision in ("none", "ieee") and not torch.is_autocast_enabled("cpu")
    many = in_numpy(batch) and batch.shape[2] >= MANY_CHANNELS
    return full and many and batch.dtype != torch.float64


def float32_gram(rows: Tensor) -> tuple[Tensor, float]:
    """`gram` of float32 rows (B, T, D), and a bound of its error relative to two rows' lengths.

    The bound times the product of two rows' lengths bounds the error of their product. The error of
    a sum in any order with n roundings is at most n u / (1 - n u) of the sum of the absolute
    products, where u = 2^-24 (Higham, Accuracy and Stability of Numerical Algorithms, chapter 3).
    That sum is at most the product of the lengths. To keep n small, the channels are summed in
    parts: n counts one rounding per channel of a part, one per part, and four to spare for
    underflow and grids. Rows must be zero or have a length in `FLOAT32_LENGTHS`.
    """
    parts = rows.split(PART, dim=2)
    roundings = (PART + len(parts) + 4) * 2.0**-24
    products = gram(parts[0])
    for part in parts[1:]:
        products += gram(part)
    return products, roundings / (1 - roundings)


def _scipy_linalg() -> ModuleType | None:
    """`scipy.linalg`, imported when first used; None if SciPy, which is optional, is missing."""
    try:
        return importlib.import_module("scipy.linalg")
    except ImportError:
        return None


def one_thread() -> AbstractContextManager[Any]:
    """A block in which NumPy's and SciPy's OpenBLAS run on one thread, if threadpoolctl is there.

    With several threads, OpenBLAS's workers spin for some 20 ms after a call, on cores that torch
    needs.
    """
    return _limits()()


@cache
def _limits() -> Callable[[], AbstractContextManager[Any]]:
    try:
        threadpoolctl = importlib.import_module("threadpoolctl")
    except ImportError:
        return nullcontext
    _scipy_linalg()  # SciPy's OpenBLAS is not NumPy's, and only loaded libraries are found
    controller = threadpoolctl.ThreadpoolController().select(internal_api="openblas")
    return partial(controller.limit, limits=1)


def leading_eigenvectors(matrices: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The `count` largest eigenvalues of symmetric float64 (B, n, n) matrices, and their vectors.

    Returns values (B, count), descending, and vectors (B, n, count) in columns. On the CPU, SciPy,
    if it is installed, computes only these (LAPACK's `syevr`) and overwrites `matrices`. Otherwise
    torch computes all n.
    """
    size = matrices.shape[1]
    scipy_linalg = _scipy_linalg()
    if scipy_linalg is None or not on_cpu(matrices):
        values, vectors = torch.linalg.eigh(matrices)
        return values[:, -count:].flip(1), vectors[:, :, -count:].flip(2)
    wanted = (size - count, size - 1)
    values = matrices.new_empty((len(matrices), count))
    vectors = matrices.new_empty((len(matrices), size, count))
    options = {"subset_by_index": wanted, "driver": "evr", "check_finite": False}
    with one_thread():
        for image, matrix in enumerate(matrices.numpy()):
            # Transposed, the matrix is in LAPACK's order of memory and need not be copied.
            found = scipy_linalg.eigh(matrix.T, overwrite_a=True, **options)
            values[image], vectors[image] = map(torch.from_numpy, found)
    return values.flip(1), vectors.flip(2)


def rank_descending(score: Tensor) -> Tensor:
    """(B, T) int64 place of each token by descending `score` (B, T); ties to the lower index."""
    return score.argsort(dim=1, descending=True, stable=True).argsort(dim=1)


def rank_ascending(key: Tensor) -> Tensor:
    """(B, T) int64 place of each token by ascending `key` (B, T); ties to the lower index."""
    return key.argsort(dim=1, stable=True).argsort(dim=1)


def rank_of_picks(picks: Tensor, num_tokens: int) -> Tensor:
    """(B, T) int64 place of each token: the distinct `picks` (B, M), then the rest by index."""
    rank = torch.arange(num_tokens, device=picks.device).repeat(len(picks), 1) + num_tokens
    rank.scatter_(1, picks, torch.arange(picks.shape[1], device=picks.device).expand_as(picks))
    return rank.argsort(dim=1).argsort(dim=1)
