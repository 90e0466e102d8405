"""Heun's method on the probability-flow ODE (Karras et al. 2022, algorithm 1), and its second-order family (algorithm 3).

The ODE is d(x/α)/d(σ/α) = ε̂ in σ/α, and dx/dt = α̇·x̂₀ + σ̇·ε̂ in the schedule's time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Variable, check_rates, combine, drift, lead, steady, stride
from lodestar.samplers.base import Sampler, State


class Heun(Sampler):
    """Heun's method. Deterministic; two evaluations a step, one at the step to clean data, which leads to x̂₀.

    Steps too wide for a second evaluation at their noise (not `steady`) are Euler's, with one evaluation.
    """

    kind: Literal["heun"] = "heun"
    reach: float = Field(default=1.0, gt=0, le=1)
    """Relative position of the second evaluation in the step: 1 is Heun's method, 1/2 the midpoint's (α of the paper's algorithm
    3)."""
    variable: Variable = "ratio"
    """Independent variable of the ODE: σ/α, or the schedule's time, undefined for clean data."""

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        super()._check_steps(steps)
        if self.variable == "time":
            check_rates(steps)

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded()
            if step.s.sigma == 0:
                x = lead(estimate, step.s)
            elif self.variable == "time":
                x = self._in_time(denoise, estimate, step)
            else:
                x = self._in_ratio(denoise, estimate, step)
            yield State(x, estimate, index)

    def _in_ratio(self, denoise: Denoise, estimate: Estimate, step: Transition) -> Tensor:
        """Step in σ/α: x/α moves by (σ_s/α_s − σ_t/α_t)·(ε̂_t + (ε̂ − ε̂_t)/(2·reach))."""
        t, s = step.t, step.s
        stage = s
        if self.reach < 1:
            stage = step.levels.at_ratio(float((1 - self.reach) * t.ratio + self.reach * s.ratio))
        weight = float(s.sigma - s.alpha * t.ratio) / (2 * self.reach)
        if not steady(t, s, (weight, stage)):
            return lead(estimate, s)
        return lead(estimate, s, (weight, denoise(lead(estimate, stage), stage).folded().eps))

    def _in_time(self, denoise: Denoise, estimate: Estimate, step: Transition) -> Tensor:
        """Step in time: x moves by (s − t)·(ẋ_t + (ẋ − ẋ_t)/(2·reach))."""
        width = float(step.s.time - step.t.time)
        stage = step.s if self.reach == 1 else step.levels.at(float(step.t.time) + self.reach * width)
        share = 1 / (2 * self.reach)
        if not steady(step.t, step.s, (share * width * step.levels.rates(stage)[1], stage)):
            return combine(*zip(stride(step), (estimate.x0, estimate.x), strict=True))
        of_x0, of_x = stride(step, self.reach)
        ahead = denoise(combine((of_x0, estimate.x0), (of_x, estimate.x)), stage).folded()
        of_x0, of_x = stride(step, 1 - share)
        ahead_x0, ahead_x = (share * width * factor for factor in drift(stage, step.levels))
        return combine((of_x0, estimate.x0), (of_x, estimate.x), (ahead_x0, ahead.x0), (ahead_x, ahead.x))
