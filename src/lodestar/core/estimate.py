"""Estimates: a model's belief about the clean data, given a noisy sample.

Networks produce estimates, guidance changes them, samplers follow them, losses grade them. Only x̂₀ is stored; ε̂, score and v
are derived, so they stay consistent after any change (clamping, guidance).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.level import Level, spread


@dataclass(frozen=True, slots=True)
class Estimate:
    """A denoiser's estimate at one noisy x [B, ...] and its level."""

    x: Tensor
    """The noisy sample [B, ...]."""
    level: Level
    x0: Tensor
    """E[x₀ | x], the expected clean sample [B, ...]."""
    frac: Tensor | None = None
    """Learned reverse variance as a fraction in [−1, 1] of x's shape; only a Transition can turn it into a number."""
    logvar: Tensor | None = None
    """Learned reverse log variance itself, of x's shape; it belongs to the chain of the network's training."""
    shift: Tensor | None = None
    """Σ scale·∇ₓ log p(y | x), collected by guidance and not applied: the published samplers apply it in different ways."""
    limit: float | None = None
    """Clamp of x̂₀ after folding the shift, to [−limit, limit]; None if unclamped. An expectation of data stays in the data's
    range."""
    renoise: Tensor | None = None
    """CFG++: x̂₀ [B, ...] whose ε̂ a step adds back, in place of this estimate's own; None without CFG++. Supported by samplers
    that call folded(renoises=True) and take their terms from `lodestar.samplers.algebra.renoised`; others raise Problem."""
    renoiser: str = "guidance"
    """Name of the guidance that set `renoise`, for error messages."""
    unclipped: Tensor | None = None
    """x̂₀ before clamping to the range of the data [B, ...] (with CFG++, `renoise` before clamping); None if not clamped."""

    @property
    def eps(self) -> Tensor:
        """The predicted noise ε̂ = (x − α·x̂₀)/σ."""
        return (self.x - spread(self.level.alpha, self.x) * self.x0) / spread(self.level.sigma, self.x)

    @property
    def score(self) -> Tensor:
        """The score ∇ₓ log p(x) = −ε̂/σ."""
        return -self.eps / spread(self.level.sigma, self.x)

    @property
    def v(self) -> Tensor:
        """The velocity v = α·ε̂ − σ·x̂₀ (Salimans and Ho 2022, appendix D)."""
        return spread(self.level.alpha, self.x) * self.eps - spread(self.level.sigma, self.x) * self.x0

    def folded(self, renoises: bool = False) -> Estimate:
        """The estimate with its shift applied by Tweedie's formula: x̂₀ + σ²/α·shift, equally ε̂ − σ·shift (ADM, algorithm 2).

        renoises: the caller supports `renoise`. Raises Problem as `check_renoising` and `check_shifting` do.
        """
        if self.renoise is not None and not renoises:
            check_renoising(self.renoiser)
        if self.shift is None:
            return self
        check_shifting(self.level)
        gain = self.level.sigma**2 / self.level.alpha
        change = spread(gain, self.x) * self.shift
        x0 = self.x0 + change
        # The added-back noise ignores the shift.
        unclipped = self.unclipped if self.unclipped is None or self.renoise is not None else self.unclipped + change
        x0 = x0 if self.limit is None else x0.clamp(-self.limit, self.limit)
        return replace(self, x0=x0, shift=None, unclipped=unclipped)


def check_renoising(renoiser: str) -> None:
    """Raise Problem: the sampler does not support adding back another estimate's noise, which `renoiser` requires."""
    raise Problem(f"{renoiser} puts back other noise than x0's own, which this sampler cannot: use ddim or dpmpp")


def check_shifting(level: Level) -> None:
    """Raise Problem at pure noise (α = 0): x has no information on x₀ there, so no x̂₀ can express a shift."""
    if isinstance(level.alpha, float) and level.alpha == 0:
        raise Problem("a gradient cannot move x0 at pure noise (zero terminal signal): use ancestral, form mean")


Denoise = Callable[[Tensor, Level], Estimate]
"""A denoiser with its conditions bound: (x [B, ...], level) → Estimate."""

Noise = Callable[[Tensor], Tensor]
"""A source of standard normal noise, shaped like its argument."""
