"""Heun's method on the probability-flow ODE d(x/α)/d(σ/α) = ε̂ (Karras et al. 2022, algorithm 1). Second order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import Sampler, State, combine, follow


class Heun(Sampler):
    """Heun's method. Deterministic; two evaluations a step, one at the step to clean data, where Euler's is taken.

    Raises Problem where it would begin at pure noise (α = 0), which has no σ/α.
    """

    kind: Literal["heun"] = "heun"

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            if t.alpha == 0:
                raise Problem("sampler heun cannot begin at pure noise (a schedule of zero terminal signal): use ddim or dpmpp")
            estimate = denoise(x, t).folded()
            of_x0, of_x = follow(t, s)
            ahead = combine((of_x0, estimate.x0), (of_x, x))
            if s.sigma > 0:
                # x/α moves by (σ_s/α_s − σ_t/α_t)·(ε̂_t + ε̂_s)/2; `half` is α_s times half of that width.
                half = (s.sigma - s.alpha * t.sigma / t.alpha) / 2
                there, here = half / s.sigma, half / t.sigma
                second = denoise(ahead, s).folded()
                ahead = combine((1 + there, ahead), (-there * s.alpha, second.x0), (-here, x), (here * t.alpha, estimate.x0))
            x = ahead
            yield State(x, estimate, index)
