"""What a model believes about the clean data, given a noisy one: the noun that everything else is arranged around.

Networks exist to produce an estimate, guidance to change it, samplers to spend it, losses to grade it. Only x̂₀ is stored, so
that ε, the score and v are right whatever has been done to it (clipping, guidance).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.level import Level, spread


@dataclass(frozen=True, slots=True)
class Estimate:
    """The belief of a denoiser at one noisy x [B, ...] and its level."""

    x: Tensor
    """The noisy sample [B, ...]."""
    level: Level
    x0: Tensor
    """E[x₀ | x], the expected clean sample [B, ...]."""
    frac: Tensor | None = None
    """Learned reverse variance as a fraction in [−1, 1] of x's shape; only a Transition can turn it into a number."""
    logvar: Tensor | None = None
    """Learned reverse log variance outright, of x's shape; it belongs to the chain that the network was trained on."""
    shift: Tensor | None = None
    """Σ scale·∇ₓ log p(y | x), collected by guidance and not applied: published forms differ in who applies it."""
    limit: float | None = None
    """Where given, x̂₀ with the shift folded in is clamped to [−limit, limit] too: an expectation of data stays among the data."""
    renoise: Tensor | None = None
    """Where given, another x̂₀ [B, ...], whose ε̂ a step puts back instead of x0's own (CFG++). A sampler that keeps to this says
    so when it folds, and takes its terms from `lodestar.samplers.algebra.renoised`; every other one refuses."""
    renoiser: str = "guidance"
    """Who wants that, for the message of those that refuse."""
    unclipped: Tensor | None = None
    """Where x̂₀ was limited to the range of the data: what it was before, or what `renoise` was where that is given [B, ...]."""

    @property
    def eps(self) -> Tensor:
        """The noise ε̂ = (x − α·x̂₀)/σ."""
        return (self.x - spread(self.level.alpha, self.x) * self.x0) / spread(self.level.sigma, self.x)

    @property
    def score(self) -> Tensor:
        """∇ₓ log p(x) = −ε̂/σ."""
        return -self.eps / spread(self.level.sigma, self.x)

    @property
    def v(self) -> Tensor:
        """The velocity v = α·ε̂ − σ·x̂₀ (Salimans and Ho 2022, appendix D)."""
        return spread(self.level.alpha, self.x) * self.eps - spread(self.level.sigma, self.x) * self.x0

    def folded(self, renoises: bool = False) -> Estimate:
        """The shift applied by Tweedie's formula, x̂₀ + σ²/α·shift, equally ε̂ − σ·shift (ADM, algorithm 2).

        renoises: the caller keeps to `renoise`. Raises Problem as `check_renoising` and `check_shifting` do.
        """
        if self.renoise is not None and not renoises:
            check_renoising(self.renoiser)
        if self.shift is None:
            return self
        check_shifting(self.level)
        gain = self.level.sigma**2 / self.level.alpha
        change = spread(gain, self.x) * self.shift
        x0 = self.x0 + change
        # Noise that is put back instead of x̂₀'s own knows no shift.
        unclipped = self.unclipped if self.unclipped is None or self.renoise is not None else self.unclipped + change
        x0 = x0 if self.limit is None else x0.clamp(-self.limit, self.limit)
        return replace(self, x0=x0, shift=None, unclipped=unclipped)


def check_renoising(renoiser: str) -> None:
    """Raise Problem: a sampler that cannot put back other noise meets somebody who wants that."""
    raise Problem(f"{renoiser} puts back other noise than x0's own, which this sampler cannot: use ddim or dpmpp")


def check_shifting(level: Level) -> None:
    """Raise Problem at pure noise (α = 0), where x says nothing of x₀, so that no x̂₀ can express a shift."""
    if isinstance(level.alpha, float) and level.alpha == 0:
        raise Problem("a gradient cannot move x0 at pure noise (zero terminal signal): use ancestral, form mean")


Denoise = Callable[[Tensor, Level], Estimate]
"""A denoiser whose conditions are bound: (x [B, ...], level) → Estimate."""

Noise = Callable[[Tensor], Tensor]
"""Standard normal noise, shaped like its argument."""
