"""Redundancy and information of an image (equations 4, 5, 7) and budgets from it (section 3.4)."""

from __future__ import annotations

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import COSINE_GRID, gram, on_grid, per_image

RULES = ("benchmark", "calibrated")
RHOS = ("pairs", "triangle")
# The largest relative difference between the realized mean budget and the wanted one.
TOLERANCE = 0.005


def similarity(features: Tensor) -> Tensor:
    """Cosine similarity of the raw tokens (equation 5).

    features (B, T, D), finite. Returns (B, T, T) float64 on `COSINE_GRID`, so that duplicates
    have a similarity of exactly 1. A zero token has similarity 0 to every token.
    """

    return rounded(cosine(features))


def rounded(cosines: Tensor) -> Tensor:
    """float64 `cosines` of any shape on `COSINE_GRID`, within -1 and 1."""
    return on_grid(cosines, COSINE_GRID).clamp_(-1, 1)


def cosine(features: Tensor) -> Tensor:
    """`similarity` before rounding to the grid: a Gram matrix with the rank of the features."""
    return per_image(lambda x: gram(unit(x)), features)


def unit(features: Tensor) -> Tensor:
    """(B, T, D) tokens at unit length, float64; a zero token stays zero."""
    # Dividing by the largest entry keeps squares of tiny or huge entries in range.
    largest = torch.maximum(features.amax(dim=2, keepdim=True), -features.amin(dim=2, keepdim=True))
    x = features.to(torch.float64, copy=True)
    x.div_(largest.double().clamp_(min=torch.finfo(x.dtype).tiny))
    return x.div_(torch.linalg.vector_norm(x, dim=2, keepdim=True).clamp(min=1))


def inverse_lengths(features: Tensor) -> Tensor:
    """(B, T) float64: 1 / length of each of the (B, T, D) tokens, 0 for a zero token.

    Not for float64 tokens, whose squares may be out of range.
    """
    lengths = torch.linalg.vector_norm(features, dim=2, dtype=torch.float64)
    return torch.where(lengths > 0, 1 / lengths, 0.0)


def redundancy(rows: Tensor, rho: str = "pairs") -> Tensor:
    """rho, the mean similarity over the unordered pairs of tokens (equation 4).

    All pairs are summed at once: the products of all pairs of rows sum to the squared length of the
    sum of the rows.

    rows  (B, T, D) float64 tokens from `unit`
    rho   "pairs", or "triangle": the mean of a (T, T) matrix whose lower triangle is zero. Tokens
          then pair with themselves, and the result is about half of equation 4

    Returns (B,) float64 on `COSINE_GRID`; "pairs" of a single token is 0.
    """
    if rho not in RHOS:
        raise ValueError(f"rho must be one of {', '.join(RHOS)}, not {rho!r}")
    tokens = rows.shape[1]
    whole, own = rows.sum(dim=1).square().sum(dim=1), rows.square().sum(dim=(1, 2))
    if rho == "triangle":
        return on_grid((whole + own) / (2 * tokens**2), COSINE_GRID)
    return on_grid((whole - own) / max(tokens * (tokens - 1), 1), COSINE_GRID)


def information(features: Tensor) -> Tensor:
    """phi = 1 - rho (equation 7) of features (B, T, D): (B,) float64 in [0, 2]."""
    return 1 - redundancy(unit(features))


def budget_scale(
    phi: Tensor,
    budget: float,
    *,
    num_tokens: int,
    minimum: int = 1,
    weights: Tensor | None = None,
) -> float:
    """The factor c of N' = c * phi at which the mean of the clipped, rounded N' reaches `budget`.

    phi      (B,) information scores
    weights  (B,) weight of each image in the mean, such as its number of questions; None: 1

    ValueError if no c can reach the budget.
    """
    return _bracket(*_checked(phi, budget, num_tokens, minimum, weights))[1]


def dynamic_budgets(
    phi: Tensor,
    budget: float,
    *,
    num_tokens: int,
    rule: str = "benchmark",
    calibration: Tensor | None = None,
    minimum: int = 1,
    weights: Tensor | None = None,
) -> Tensor:
    """One budget per image, N' = clip(round(c * phi), minimum, num_tokens) (section 3.4).

    phi          (B,) information scores of the images of a benchmark
    budget       the wanted mean of N'
    rule         "benchmark": c makes the mean over `phi` equal `budget`, as in the paper.
                 "calibrated": c makes the mean over `calibration` equal `budget`, so that an
                 image's budget does not depend on the rest of the test set
    calibration  (C,) scores of a held-out set
    weights      (B,) weights for the benchmark rule, see `budget_scale`

    Returns (B,) int64 on the device of `phi`. Under the benchmark rule the realized mean is within
    0.5 % of `budget`. If several images share the score at which c * phi is halfway between two
    integers, the first of them are rounded up. ValueError if no c reaches such a mean.
    """
    if rule == "calibrated":
        if calibration is None:
            raise ValueError("rule='calibrated' needs the scores of a calibration set")
        scale = budget_scale(calibration, budget, num_tokens=num_tokens, minimum=minimum)
        return _rounded(phi.double(), scale, minimum, num_tokens)
    if rule != "benchmark":
        raise ValueError(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    if calibration is not None:
        raise ValueError("calibration scores are for rule='calibrated'")
    phi, budget, num_tokens, minimum, weights = _checked(phi, budget, num_tokens, minimum, weights)
    low, high = _bracket(phi, budget, num_tokens, minimum, weights)
    budgets = _rounded(phi, low, minimum, num_tokens)
    step = _rounded(phi, high, minimum, num_tokens) - budgets
    # The means if the first 0, 1, 2, ... of these images are rounded up; the nearest one wins.
    means = (weights * budgets).sum() + torch.cat([step.new_zeros(1), (weights * step).cumsum(0)])
    best = int((means - budget).abs().argmin())
    budgets[:best] += step[:best]
    realized = float((weights * budgets).sum())
    if abs(realized - budget) > TOLERANCE * budget:
        raise ValueError(
            f"the nearest mean budget to {budget:g} that these images allow is {realized:g}"
        )
    return budgets


def _checked(
    phi: Tensor, budget: float, num_tokens: int, minimum: int, weights: Tensor | None
) -> tuple[Tensor, float, int, int, Tensor]:
    phi = phi.double()
    if phi.ndim != 1 or len(phi) == 0 or not bool(torch.isfinite(phi).all()):
        raise ValueError("phi must be a non-empty vector of finite scores")
    if not 1 <= minimum <= budget <= num_tokens:
        raise ValueError(
            f"expected 1 <= minimum <= budget <= num_tokens, not {minimum}, {budget}, {num_tokens}"
        )
    shares = torch.ones_like(phi) if weights is None else weights.to(phi)
    if shares.shape != phi.shape or bool((shares < 0).any()) or float(shares.sum()) <= 0:
        raise ValueError("weights must be one non-negative number per score, not all zero")
    return phi, budget, num_tokens, minimum, shares / shares.sum()


def _rounded(phi: Tensor, scale: float, minimum: int, num_tokens: int) -> Tensor:
    return (scale * phi).round().clamp(minimum, num_tokens).long()


def _bracket(
    phi: Tensor, budget: float, num_tokens: int, minimum: int, weights: Tensor
) -> tuple[float, float]:
    """Two adjacent floats c: the mean of N' is below `budget` at the first, not at the second."""

    def reaches(scale: float) -> bool:
        mean = float((weights * _rounded(phi, scale, minimum, num_tokens)).sum())
        return mean >= budget * (1 - 1e-12)

    positive = phi[phi > 0]
    high = (num_tokens + 1) / float(positive.min()) if len(positive) else 1.0
    if not reaches(high):
        raise ValueError(
            f"too many images without information (phi <= 0) for a mean budget of {budget:g}"
        )
    low = 0.0
    while (middle := (low + high) / 2) not in (low, high):
        low, high = (low, middle) if reaches(middle) else (middle, high)
    return low, high
