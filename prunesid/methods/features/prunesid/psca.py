"""Principal semantic component analysis: groups of tokens (section 3.2, equations 1-3)."""

from __future__ import annotations

from collections.abc import Sequence

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import gram, leading_eigenvectors, on_cpu, on_grid

CENTERS = ("tokens", "channels")
SOLVERS = ("exact", "randomized")

# A direction is not one of the data if its share of the largest variance is below the first number,
# or its mean squared entry below the second (float64 noise of a constant).
RELATIVE_VARIANCE = 1e-12
ABSOLUTE_VARIANCE = 1e-20
POWER_ITERATIONS = 2


def token_components(
    features: Tensor,
    num_components: int | Sequence[int],
    *,
    center: str = "tokens",
    solver: str = "exact",
    generators: Sequence[torch.Generator] | None = None,
) -> Tensor:
    """|V|, each token's contribution to each principal direction (equations 1 and 2).

    The sigmoid of the features is centered and decomposed.

    features        (B, T, D), finite, any float dtype
    num_components  K, or one K per image, each at most min(T, D); surplus columns are zero
    center          "tokens" subtracts each channel's mean over the tokens (equation 1), "channels"
                    each token's mean over its channels (the released code)
    solver          "exact", or "randomized": range finder with a Gaussian block of K columns, drawn
                    from `generators`, and two power iterations (Halko et al. 2011, algorithm 4.4)

    Returns (B, T, max K) float64, on a grid of 2^-30. Columns beyond the numerical rank, where the
    singular vectors are arbitrary, are zero. For equal singular values the solver picks the basis.
    """
    images, tokens, channels = features.shape
    counts = [num_components] * images if isinstance(num_components, int) else [*num_components]
    if not all(1 <= count <= min(tokens, channels) for count in counts):
        raise ValueError(f"num_components must be in 1..{min(tokens, channels)}, not {counts}")
    vectors = features.new_zeros((images, tokens, max(counts)), dtype=torch.float64)
    if solver not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, not {solver!r}")
    if solver == "exact" and not on_cpu(features):
        wanted = torch.tensor(counts, device=features.device)[:, None, None]
        surplus = torch.arange(max(counts), device=features.device) >= wanted
        vectors = _exact(_rescale(features, center), max(counts)).masked_fill(surplus, 0)
        return on_grid(vectors.abs())
    if solver == "randomized" and (generators is None or len(generators) != images):
        raise ValueError("the randomized solver needs one generator per image")
    # Image by image for the reason in `per_image`; the randomized block has K columns anyway.
    for image, count in enumerate(counts):
        centered = _rescale(features[image : image + 1].clone(), center)
        if solver == "exact":
            vectors[image, :, :count] = _exact(centered, count)[0]
        elif generators is not None:
            vectors[image, :, :count] = _randomized(centered[0], count, generators[image])
    return on_grid(vectors.abs())


def assign(components: Tensor) -> tuple[Tensor, Tensor]:
    """Each token's group and score from |V| (B, T, K): equation 3 and s_i of section 3.3.

    Returns group (B, T) int64, ties to the lower component, and score (B, T) float64.
    """
    score, group = components.max(dim=2)
    return group, score


def macs(tokens: int, channels: int, num_components: int, solver: str = "exact") -> int:
    """Multiply-adds of `token_components` for one image.

    exact       the Gram matrix of the smaller side n, and 9/2 n^3 for its eigenvectors by the
                symmetric QR algorithm (Golub and Van Loan, section 8.3), which is more than divide
                and conquer takes. If T > D, also one product with the K directions
    randomized  six products with the K columns. Five QR decompositions with the factor formed:
                three of 2 m K^2 (m is the larger side) and two of 2 n K^2. An SVD of K rows,
                3 n K^2 + 10 K^3 (Golub and Van Loan, sections 5.2 and 8.6). If T > D, also m K^2
                for the token side of the result
    """
    n, m = sorted((tokens, channels))
    k = num_components
    if solver == "exact":
        projected = tokens * channels * k if tokens > channels else 0
        return n * n * m + 9 * n**3 // 2 + projected
    tall, wide = 2 * m * k * k, 2 * n * k * k
    qr = (1 + POWER_ITERATIONS) * tall + POWER_ITERATIONS * wide
    svd = 3 * n * k * k + 10 * k**3
    products = (2 + 2 * POWER_ITERATIONS) * tokens * channels * k
    lifted = m * k * k if tokens > channels else 0
    return products + qr + svd + lifted


def _rescale(features: Tensor, center: str) -> Tensor:
    if center not in CENTERS:
        raise ValueError(f"center must be one of {', '.join(CENTERS)}, not {center!r}")
    rescaled = features.to(torch.float64, copy=True).sigmoid_()
    return rescaled.sub_(rescaled.mean(dim=1 if center == "tokens" else 2, keepdim=True))


def _exact(centered: Tensor, count: int) -> Tensor:
    """The leading eigenvectors (b, T, count) of the tokens' Gram matrix, by its smaller side."""
    _, tokens, channels = centered.shape
    if tokens <= channels:
        values, vectors = leading_eigenvectors(gram(centered), count)
        absent = _absent(values, centered)
        # A single null direction is determined by the others; two or more have no unique basis.
        # All directions after an absent one are absent, too.
        absent &= absent.sum(dim=1, keepdim=True) + tokens - count > 1
        return vectors.masked_fill(absent[:, None], 0)
    _, directions = leading_eigenvectors(gram(centered.transpose(1, 2)), count)
    scaled = centered @ directions
    lengths: Tensor = torch.linalg.vector_norm(scaled, dim=1, keepdim=True)
    absent = _absent(lengths[:, 0].square(), centered)
    return (scaled / lengths).masked_fill(absent[:, None], 0)


def gaussian_block(rows: int, columns: int, generator: torch.Generator) -> Tensor:
    """(rows, columns) float64 Gaussian numbers from which the randomized solver starts."""
    return torch.randn((rows, columns), generator=generator, dtype=torch.float64)


def _randomized(centered: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Approximate leading right singular vectors (T, count) of centered^T (D, T)."""
    tokens, channels = centered.shape
    tall = centered.T if tokens <= channels else centered
    block = gaussian_block(tall.shape[1], count, generator).to(tall.device)
    basis = torch.linalg.qr(tall @ block).Q
    for _ in range(POWER_ITERATIONS):
        basis = torch.linalg.qr(tall.T @ basis).Q
        basis = torch.linalg.qr(tall @ basis).Q
    left, values, right = torch.linalg.svd(basis.T @ tall, full_matrices=False)
    vectors: Tensor = right.T if tokens <= channels else basis @ left
    absent = _absent(values.square()[None], centered[None])[0]
    return vectors.masked_fill(absent, 0)


def _absent(variances: Tensor, centered: Tensor) -> Tensor:
    """(b, K) bool: true where a variance (b, K), descending, is too small for a real direction."""
    floor = ABSOLUTE_VARIANCE * centered[0].numel()
    return variances <= (RELATIVE_VARIANCE * variances[:, :1]).clamp(min=floor)
