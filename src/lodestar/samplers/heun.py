"""Heun's method on the probability-flow ODE d(x/α)/d(σ/α) = ε̂ (Karras et al. 2022, algorithm 1), and its second-order family."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import DROWNED, Sampler, State, combine, follow, lead


class Heun(Sampler):
    """Heun's method. Deterministic; two evaluations a step, one at the step to clean data, where Euler's is taken.

    So it is at a step from noise that drowns the picture (`DROWNED`).
    """

    kind: Literal["heun"] = "heun"
    reach: float = Field(default=1.0, gt=0, le=1)
    """Where in the step the second evaluation is: 1 is Heun's method, 1/2 the midpoint's (α of the paper's algorithm 3)."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded()
            if s.sigma == 0 or t.ratio > DROWNED:
                x = lead(estimate, s)
            else:
                stage = s
                if self.reach < 1:
                    stage = step.levels.at_ratio(float((1 - self.reach) * t.ratio + self.reach * s.ratio))
                of_x0, of_x = follow(t, stage)
                ahead = denoise(combine((of_x0, estimate.x0), (of_x, x)), stage).folded()
                # x/α moves by (σ_s/α_s − σ_t/α_t)·(ε̂_t + (ε̂ − ε̂_t)/(2·reach)).
                x = lead(estimate, s, ((s.sigma - s.alpha * t.ratio) / (2 * self.reach), ahead.eps))
            yield State(x, estimate, index)
