"""Euler's method on the probability-flow ODE (Karras et al. 2022, equations 1 and 4). First order.

The ODE is d(x/α)/d(σ/α) = ε̂ in σ/α, and dx/dt = α̇·x̂₀ + σ̇·ε̂ in the schedule's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Variable, check_rates, combine, follow, renoised, stride
from lodestar.samplers.base import Sampler, State


class Euler(Sampler):
    """Euler's method; in σ/α its steps equal DDIM's at η = 0. Deterministic; one evaluation a step. Invertible."""

    kind: Literal["euler"] = "euler"
    variable: Variable = "ratio"
    """Independent variable of the ODE: σ/α, or the schedule's time. Clean data have no time: the last step leads to x̂₀."""

    @property
    def renoises(self) -> bool:
        return True

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        super()._check_steps(steps)
        if self.variable == "time":
            check_rates(steps)

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded(self.renoises)
            in_time = self.variable == "time" and step.s.sigma > 0
            of_x0, of_x = stride(step) if in_time else follow(step.t, step.s)
            base, added = renoised(estimate, step.s)
            x = combine((of_x0, base.x0), (of_x, x), *added)
            yield State(x, estimate, index)
