"""Composed labels (composable diffusion, Liu et al. 2022): *and* adds each label's change, *not* subtracts the change.

x̂₀ = unconditional + Σ sign·(conditional on the label − unconditional); the same in ε̂ and in the score. With classifier-free
guidance of scale s around it, every change counts s times, as published.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from lodestar.core.estimate import Estimate
from lodestar.core.level import spread


@dataclass(frozen=True, slots=True)
class Composition:
    """The labels of each of B samples, T labels in all."""

    rows: Tensor
    """The sample of each label: int64 [T]."""
    signs: Tensor
    """Sign of each label, 1 for wanted, −1 for unwanted: float32 [T]."""

    def __call__(self, each: Estimate, null: Estimate) -> Estimate:
        """The composed estimate [B, ...] of the labels' estimates [T, ...] and the unconditional one [B, ...].

        A sample with a single wanted label has exactly the label's estimate, without labels the unconditional one. A learned
        variance is the mean of the labels' variances.
        """

        def sum_of(values: Tensor, signs: Tensor) -> Tensor:
            return torch.zeros_like(null.x).index_add(0, self.rows, spread(signs, values) * values)

        def mean(values: Tensor | None, without: Tensor | None) -> Tensor | None:
            if values is None or without is None:
                return None
            ones = torch.ones_like(self.signs)
            count = sum_of(torch.ones_like(values), ones)
            return torch.where(count > 0, sum_of(values, ones) / count.clamp_min(1), without)

        of_null = 1 - sum_of(torch.ones_like(each.x0), self.signs)
        x0 = of_null * null.x0 + sum_of(each.x0, self.signs)
        return replace(null, x0=x0, frac=mean(each.frac, null.frac), logvar=mean(each.logvar, null.logvar))
