"""Density-peak clusters (Du et al. 2016) of a few tokens, and their means."""

from __future__ import annotations

from prunesid.core.delayed import Tensor, torch
from prunesid.core.numerics import PROBABILITY_GRID, on_grid


def density_peaks(points: Tensor, count: int, *, noise: float) -> tuple[Tensor, Tensor]:
    """Cluster `points` (n, C) around `count` centers -> (centers (count,), member (n,)), int64.

    A point's density is exp(-mean squared distance to its nearest `count` points, itself included).
    Centers are the points with the largest product of density and distance to the nearest point of
    higher density, the largest first. Distances are divided by sqrt(C). Every point joins its
    nearest center; `member` holds that center's number.

    noise  scale of the random numbers added to the densities, a fixed sequence at every call. It
           decides between densities that are equal, or so small that they are 0 in float64
    """
    points = points.double()
    total = len(points)
    # Not by a matrix product, which would give a point some distance to its own copy.
    distance = torch.cdist(points, points, compute_mode="donot_use_mm_for_euclid_dist")
    distance = on_grid(distance / points.shape[1] ** 0.5)
    nearest = distance.topk(min(count, total), dim=1, largest=False).values
    drawn = torch.rand(total, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    density = on_grid((-nearest.square().mean(dim=1)).exp(), PROBABILITY_GRID)
    density = density + noise * drawn.to(points.device)
    higher = density[:, None] < density
    isolation = distance.masked_fill(~higher, torch.inf).amin(dim=1)
    isolation = torch.where(isolation.isinf(), distance.max(), isolation)
    score = on_grid(density * isolation, PROBABILITY_GRID)
    # Without noise the two closest points always tie for two clusters. torch.topk breaks ties by
    # its partitioning, not by place; on the CPU it breaks them as in the authors' runs.
    centers = score.cpu().topk(min(count, total)).indices.to(points.device)
    member = distance[:, centers].argmin(dim=1)
    member[centers] = torch.arange(len(centers), device=points.device)
    return centers, member


def cluster_means(points: Tensor, member: Tensor, count: int) -> Tensor:
    """(count, C) float64 mean of the points (n, C) of each cluster."""
    sums = points.new_zeros(count, points.shape[1], dtype=torch.float64)
    sums.index_add_(0, member, points.double())
    return sums / torch.bincount(member, minlength=count)[:, None]
