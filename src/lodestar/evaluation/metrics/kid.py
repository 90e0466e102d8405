"""Kernel distance (KID): squared maximum mean discrepancy of features under a polynomial kernel.

Bińkowski et al. 2018, arXiv:1801.01401, section 3.1, with k(x, y) = (x·y / D + 1)³. The unbiased estimator (Gretton et al. 2012,
JMLR 13, eq. 3) has no bias in the number of pictures, unlike the Fréchet distance, and may be a little below 0:

    MMD² = Σ_{i≠j} k(x_i, x_j) / m(m-1) + Σ_{i≠j} k(y_i, y_j) / n(n-1) - 2 Σ_{ij} k(x_i, y_j) / mn
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Seed
from lodestar.core.noise import generator
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics
from lodestar.evaluation.subsets import ordered


class KID(BaseMetric):
    """Kernel distance: mean ``kid`` over random subsets of both sets, not multiplied by 1000, and deviation ``kid_std``.

    A subset has `max_subset_size` pictures, or the smaller set's number if lower. Subsets depend on the seed and the pictures,
    not on the pictures' order.
    """

    kind: Literal["kid"] = "kid"
    subsets: int = Field(default=100, ge=1, le=100_000)
    max_subset_size: int = Field(default=1000, ge=2, le=100_000)
    seed: Seed = 0
    needs: ClassVar[Part] = "features"

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        x, y = (ordered(each) for each in self.both(generated, reference))
        size = min(self.max_subset_size, len(x), len(y))
        rng = generator(self.seed)
        pairs = [(draw_subset(len(x), size, rng), draw_subset(len(y), size, rng)) for _ in range(self.subsets)]
        values = subset_mmd2(x, y, *map(torch.stack, zip(*pairs, strict=True)))
        return {"kid": float(values.mean()), "kid_std": float(values.std(correction=0))}


def draw_subset(count: int, size: int, rng: torch.Generator) -> Tensor:
    """A random subset of `size` different indices below `count`, [size]."""
    return torch.randperm(count, generator=rng)[:size]


def subset_mmd2(x: Tensor, y: Tensor, indices_x: Tensor, indices_y: Tensor) -> Tensor:
    """MMD² [S] of each pair of subsets: row s of indices [S, m] and [S, n] picks from features x [M, D] and y [N, D]."""
    return torch.stack([mmd2(x[i], y[j]) for i, j in zip(indices_x, indices_y, strict=True)])


def polynomial_kernel(x: Tensor, y: Tensor) -> Tensor:
    """The polynomial kernel (x·y / D + 1)³."""
    return (x @ y.T / x.shape[1] + 1) ** 3


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """The squared maximum mean discrepancy (0-d, float64) of features x [m, D] and y [n, D], m, n > 1."""
    x, y = x.double(), y.double()
    return unbiased(polynomial_kernel(x, x), polynomial_kernel(y, y), polynomial_kernel(x, y))


def unbiased(xx: Tensor, yy: Tensor, xy: Tensor) -> Tensor:
    """The unbiased estimate of MMD² (0-d), given the kernel within the sets, [m, m] and [n, n], and between them, [m, n]."""
    return within(xx) + within(yy) - 2 * xy.mean()


def within(kernel: Tensor) -> Tensor:
    """The mean (0-d) of a kernel [m, m] over pairs of different members."""
    return (kernel.sum() - kernel.trace()) / (len(kernel) * (len(kernel) - 1))
