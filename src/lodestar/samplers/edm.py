"""EDM's stochastic sampler (Karras et al. 2022, algorithm 2): before each step, fresh noise raises the noise level a little."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Variable, combine
from lodestar.samplers.base import Sampler, State
from lodestar.samplers.euler import Euler
from lodestar.samplers.heun import Heun


class EDMHeun(Sampler):
    """Heun's method with churn: two evaluations a step, one at the step to clean data. The defaults are ImageNet 64's.

    No level is raised above the schedule's noisiest.
    """

    kind: Literal["edm"] = "edm"
    churn: float = Field(default=40.0, ge=0, le=1e9)
    """S_churn: the relative rise of σ/α is churn/number of steps, at most √2 − 1. 0 is Heun's method."""
    low: float = Field(default=0.05, ge=0, le=1e9)
    """S_tmin, the least raised σ/α."""
    high: float = Field(default=50.0, ge=0, le=1e9)
    """S_tmax, the largest raised σ/α."""
    spread: float = Field(default=1.003, ge=0, le=100)
    """S_noise, the standard deviation of the fresh noise: a little over 1 offsets the denoiser's loss of detail."""
    solver: Literal["heun", "euler"] = "heun"
    """Solver of the step from the raised level."""
    reach: float = Field(default=1.0, gt=0, le=1)
    """Relative position of Heun's second evaluation in the step; see `Heun`."""
    variable: Variable = "ratio"
    """Independent variable of the ODE; see `Heun`."""

    @model_validator(mode="after")
    def _second_evaluation(self) -> Self:
        if self.reach < 1 and self.solver == "euler":
            raise Problem(f"sampler edm: reach is {self.reach:g} and solver 'euler': only solver 'heun' evaluates twice")
        return self

    @property
    def stochastic(self) -> bool:
        return self.churn > 0

    @property
    def renoises(self) -> bool:
        return self._solver.renoises

    def alone(self, count: int) -> Self:
        return self.replace(churn=self.churn / count)

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        super()._check_steps(steps)
        self._solver._check_steps(steps)

    @property
    def _solver(self) -> Heun | Euler:
        return Heun(reach=self.reach, variable=self.variable) if self.solver == "heun" else Euler(variable=self.variable)

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        gamma = min(self.churn / len(steps), math.sqrt(2) - 1)
        solver = self._solver
        for index, step in enumerate(steps):
            t = step.t
            if gamma > 0 and self.low <= t.ratio <= self.high:
                t = step.levels.at_ratio((1 + gamma) * float(t.ratio))
                risen = math.sqrt(max(t.ratio**2 - step.t.ratio**2, 0.0))
                x = combine((t.alpha / step.t.alpha, x), (self.spread * t.alpha * risen, noise(x)))
            (state,) = solver(denoise, x, [Transition(t, step.s, schedule=step.schedule)], noise)
            x = state.x
            yield State(x, state.estimate, index)
