"""Transitions: a step between two noise levels, t → s, and its Gaussian algebra.

For any pair of levels, neighbours in a chain of a thousand or far apart, with β = σ_t² − (α_t/α_s)²·σ_s²

    q(x_s | x_t, x₀) = N( α_s·β/σ_t² · x₀ + (α_t/α_s)·σ_s²/σ_t² · x_t ,  β·σ_s²/σ_t² ),

which is DDPM's posterior (Ho et al. 2020, equations 6 and 7; their β_t and β̃_t are `beta` and `small` of neighbouring levels).
Respacing (Improved DDPM, section 4) therefore needs no code of its own: the kept levels are simply further apart.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal

from torch import Tensor

from lodestar.core.level import Level, LevelSource, Scalar, exp, log, spread, where

FixedVariance = Literal["small", "large"]
"""The fixed reverse variance: β̃ (right for data of zero variance) or β (right for data of unit variance); DDPM, section 3.2."""


@dataclass(frozen=True, slots=True)
class Transition:
    """A step from level t to level s. s is the cleaner one when sampling, the noisier one when inverting.

    Both levels are floats (one step for the whole batch) or tensors [B] (a step of its own for each sample, in training).
    """

    t: Level
    s: Level
    floor: Scalar | None = None
    """Substitute for β̃ = 0 at the step to clean data. The published code uses the variance of the step before."""
    schedule: LevelSource | None = field(default=None, repr=False, compare=False)
    """Schedule of the step, for samplers with levels between the two or above them."""

    @property
    def beta(self) -> Scalar:
        """Variance of q(x_t | x_s), and the upper bound of the reverse variance."""
        return self.t.sigma**2 - (self.t.alpha / self.s.alpha) ** 2 * self.s.sigma**2

    @property
    def small(self) -> Scalar:
        """β̃, the variance of q(x_s | x_t, x₀), and the lower bound of the reverse variance; 0 where s is clean."""
        return self.beta * self.s.sigma**2 / self.t.sigma**2

    def coefficients(self) -> tuple[Scalar, Scalar]:
        """Factors of x₀ and of x_t in the mean of q(x_s | x_t, x₀)."""
        precision = 1 / self.t.sigma**2
        return (
            self.s.alpha * self.beta * precision,
            self.t.alpha / self.s.alpha * self.s.sigma**2 * precision,
        )

    def mean(self, x0: Tensor, x: Tensor) -> Tensor:
        """Mean of q(x_s | x_t, x₀); x0 and x are [B, ...]."""
        of_x0, of_x = self.coefficients()
        return spread(of_x0, x) * x0 + spread(of_x, x) * x

    def noised(self, x: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_t from q(x_t | x_s), given x_s and standard normal noise eps, both [B, ...]."""
        return spread(self.t.alpha / self.s.alpha, x) * x + spread(self.beta**0.5, x) * eps

    def drawn(self, x0: Tensor, x: Tensor, eps: Tensor) -> Tensor:
        """A draw of x_s from q(x_s | x_t, x₀), given standard normal noise eps [B, ...]."""
        return self.mean(x0, x) + spread(self.small**0.5, x) * eps

    def logvar(self, kind: FixedVariance) -> Scalar:
        """log of the fixed reverse variance; finite at the last step too, by `floor`."""
        small, beta = self._bounds()
        if kind == "small":
            return small
        return beta if self.floor is None else where(self._to_clean, small, beta)

    def var(self, kind: FixedVariance) -> Scalar:
        """The fixed reverse variance; "small" is exactly 0 where s is clean, as the published tables have it."""
        return self.small if kind == "small" else exp(self.logvar(kind))

    def learned_logvar(self, frac: Tensor) -> Tensor:
        """Learned log variance, between log β̃ (frac = −1) and log β (frac = 1), for frac of x's shape: Improved DDPM, equation
        15."""
        low, high = (spread(bound, frac) for bound in self._bounds())
        return (frac + 1) / 2 * high + (1 - frac) / 2 * low

    @property
    def levels(self) -> LevelSource:
        """The step's schedule."""
        assert self.schedule is not None, "this step was made without a schedule: give one to `transitions`"
        return self.schedule

    @property
    def _to_clean(self) -> bool | Tensor:
        return self.s.sigma == 0

    def _bounds(self) -> tuple[Scalar, Scalar]:
        """log β̃ (or its stand-in) and log β."""
        small = self.small if self.floor is None else where(self._to_clean, self.floor, self.small)
        return log(small), log(self.beta)


def transitions(levels: Sequence[Level], schedule: LevelSource | None = None) -> list[Transition]:
    """The steps through a list of scalar levels, in the order given (noisy to clean when sampling).

    schedule: the source of the levels, for samplers with further ones (`Transition.levels`).
    """
    steps = [Transition(t, s, schedule=schedule) for t, s in pairwise(levels)]
    if steps and levels[-1].sigma == 0:
        # A chain of a single step has no step before; then β itself is the only variance there is.
        steps[-1] = replace(steps[-1], floor=steps[-2].small if len(steps) > 1 else steps[-1].beta)
    return steps


def chain(table: Level, index: Tensor) -> Transition:
    """The steps index → index − 1 of a chain's table (index 0 is clean), for each entry of index [B] in 1 … T."""
    # On a GPU nothing is read back: the check is for CPUs, and the entries below are slices, not numbers.
    assert index.device.type != "cpu" or int(index.min()) >= 1, "index 0 is clean data: there is no step below it"
    # The substitute at the last step is β̃ of the step before, 2 → 1. A chain of one step has only β.
    floor = Transition(table[2:3], table[1:2]).small if len(table) > 2 else Transition(table[1:2], table[0:1]).beta
    return Transition(table[index], table[index - 1], floor)
