"""Euler's method on the probability-flow ODE d(x/α)/d(σ/α) = ε̂ (Karras et al. 2022, equation 1). First order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import Sampler, State, combine, follow, renoised


class Euler(Sampler):
    """Euler's method, the same steps as DDIM at η = 0. Deterministic; one evaluation a step. Runs backwards too."""

    kind: Literal["euler"] = "euler"

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded(renoises=True)
            of_x0, of_x = follow(step.t, step.s)
            base, added = renoised(estimate, step.s)
            x = combine((of_x0, base.x0), (of_x, x), *added)
            yield State(x, estimate, index)
