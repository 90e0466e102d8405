"""Multistep consistency sampling (Song et al. 2023, "Consistency models", algorithm 1): x_s = α_s·x̂₀ + σ_s·z."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine
from lodestar.samplers.base import Sampler, State


class Consistency(Sampler):
    """Multistep consistency sampling: jumps to clean data, noised anew for the next jump; 1 to 4 steps, for consistency models.

    Other models give blurred means. One evaluation a step. The paper's data end at a level σ_min, with σ_s² − σ_min² in place of
    σ_s²; here they end at σ = 0.
    """

    kind: Literal["consistency"] = "consistency"

    @property
    def stochastic(self) -> bool:
        return True

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded()
            x = combine((step.s.alpha, estimate.x0))
            if step.s.sigma > 0:
                x = combine((1.0, x), (step.s.sigma, noise(x)))
            yield State(x, estimate, index)
