"""Nearest neighbours among features, in blocks: memory grows with the number of pictures, not with its square.

All distances are Euclidean and squared, in float64.
"""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1024
"""Pictures in a block: distances to as many others are in memory at once."""
_SAME = 1e-12
"""Relative tolerance of a zero squared distance, in squared lengths, so rounding does not order equal copies."""
_EDGE = 1e-9
"""Relative tolerance of equal squared distances: the rounding of a distance differs between blocks."""


def nearest(points: Tensor, others: Tensor, k: int = 1) -> tuple[Tensor, Tensor]:
    """The k nearest of others [N, D], N ≥ k, to each point [M, D], nearest first: distances [M, k], indices int64 [M, k]."""
    origin = others.mean(0, dtype=torch.float64)
    found = []
    for x in points.split(BLOCK):
        distances, indices = torch.empty(len(x), 0, dtype=torch.float64), torch.empty(len(x), 0, dtype=torch.int64)
        for number, y in enumerate(others.split(BLOCK)):
            here = squared_distances(x, y, origin)
            distances = torch.cat([distances, here], dim=1)
            indices = torch.cat([indices, (torch.arange(len(y)) + number * BLOCK).expand(len(x), -1)], dim=1)
            distances, order = distances.topk(min(k, distances.shape[1]), largest=False)
            indices = indices.gather(1, order)
        found.append((distances, indices))
    distances, indices = (torch.cat(each) for each in zip(*found, strict=True))
    return distances, indices


def squared_radii(members: Tensor, k: int) -> Tensor:
    """The distance [N] of each member [N, D] to its k-th nearest other member, N > k."""
    # The nearest member is the member itself, so the k-th other is number k + 1.
    return nearest(members, members, k + 1)[0][:, k]


def inside(points: Tensor, centres: Tensor, radii2: Tensor) -> Tensor:
    """Number of balls containing each point [M, D], edges included: centres [N, D], squared radii [N]; int64 [M]."""
    origin = centres.mean(0, dtype=torch.float64)
    counts = []
    for x in points.split(BLOCK):
        pairs = zip(centres.split(BLOCK), radii2.split(BLOCK), strict=True)
        counts.append(torch.stack([within(squared_distances(x, y, origin), radii).sum(1) for y, radii in pairs]).sum(0))
    return torch.cat(counts)


def within(distances2: Tensor, radii2: Tensor) -> Tensor:
    """Comparison squared distances ≤ squared radii, with tolerance for rounding of equal values: bool, of the shape of both."""
    return distances2 <= radii2 * (1 + _EDGE)


def ranks(values: Tensor, others: Tensor) -> tuple[Tensor, Tensor]:
    """Numbers of others [N] that are smaller than each of values [M], and at most equal; equality as in `within`."""
    others = others.sort().values
    below, up_to = values * (1 - _EDGE), values * (1 + _EDGE)
    return torch.searchsorted(others, below), torch.searchsorted(others, up_to, right=True)


def squared_distances(x: Tensor, y: Tensor, origin: Tensor) -> Tensor:
    """Squared distances |x_i - y_j|² [M, N] by one matrix product, much faster than differences; `origin` [D] is amid the data.

    Without an origin, features far from zero would lose their digits.
    """
    x, y = x.double() - origin, y.double() - origin
    lengths2 = (x * x).sum(1, keepdim=True) + (y * y).sum(1)
    distances2 = lengths2 - 2 * (x @ y.T)
    return distances2.masked_fill_(distances2 < _SAME * lengths2, 0)
