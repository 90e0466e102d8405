"""Ancestral sampling: x_s ~ N(mean of q(x_s | x_t, x̂₀), variance) (DDPM, algorithm 2; Improved DDPM; ADM, algorithm 1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Scalar, exp
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine, renoised
from lodestar.samplers.base import Sampler, State

_LACKING = "sampler ancestral: variance is 'learned', and this model has none: choose from 'small', 'large'"


class Ancestral(Sampler):
    """Ancestral sampling of the reverse chain. A collected guidance gradient shifts the mean by variance·gradient.

    Raises Problem where a learned variance is required and the model has none.
    """

    kind: Literal["ancestral"] = "ancestral"
    variance: Literal["small", "large", "learned"] | None = None
    """Reverse variance: β̃ (small), β (large), or learned; None is the model's own if learned, else β̃."""

    @property
    def stochastic(self) -> bool:
        return True

    @property
    def renoises(self) -> bool:
        return True

    @property
    def shifts(self) -> bool:
        return True

    def check(
        self, steps: Sequence[Transition], *, renoiser: str | None = None, shifted: bool = False, learned: bool = True
    ) -> None:
        super().check(steps, renoiser=renoiser, shifted=shifted, learned=learned)
        if self.variance == "learned" and not learned:
            raise Problem(_LACKING)

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t)
            of_x0, of_x = step.coefficients()
            base, added = renoised(estimate, step.s)
            terms = [(of_x0, base.x0), (of_x, x), *added]
            variance = self._variance(step, estimate)
            if estimate.shift is not None:
                terms.append((1.0, variance * estimate.shift))
            if step.s.sigma != 0:
                terms.append((1.0, variance**0.5 * noise(x)))
            x = combine(*terms)
            yield State(x, estimate, index)

    def _variance(self, step: Transition, estimate: Estimate) -> Scalar:
        """The reverse variance: a float, or a tensor of x's shape."""
        if self.variance in (None, "learned"):
            if estimate.frac is not None:
                return exp(step.learned_logvar(estimate.frac))
            if estimate.logvar is not None:
                return exp(estimate.logvar)
        if self.variance == "learned":
            raise Problem(_LACKING)
        return step.var(self.variance or "small")
