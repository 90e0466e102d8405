"""Predictor–corrector sampling (Song et al. 2021, "Score-based generative modeling through SDEs", algorithm 1 and appendix G).

At each level, some steps of Langevin dynamics, x + ε·score + √(2·ε)·z, whose stationary distribution is the exact one, reduce the
error of x; then one ancestral step leads to the next level.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Scalar
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine
from lodestar.samplers.base import Sampler, State


class PredictorCorrector(Sampler):
    """Ancestral steps with Langevin corrections between them: 1 + `corrections` evaluations a step.

    For variance-preserving processes the published ε has an additional factor 1 − β of the chain's step, at least 0.98, left out
    here.
    """

    kind: Literal["predictor_corrector"] = "predictor_corrector"
    snr: float = Field(default=0.16, gt=0, le=100)
    """r, the signal-to-noise ratio of a correction."""
    corrections: int = Field(default=1, ge=1, le=100)
    """Steps of Langevin dynamics at each level."""
    size: Literal["score", "level"] = "score"
    """Step size: ε = 2·(r·‖z‖/‖score‖)², of each picture's own norms (algorithms 4 and 5), or 2·(r·σ)² (NCSN's annealed
    dynamics)."""

    @property
    def stochastic(self) -> bool:
        return True

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            for _ in range(self.corrections):
                estimate, fresh = denoise(x, step.t).folded(), noise(x)
                score = estimate.score
                size = self._size(estimate, score, fresh)
                x = combine((1.0, x), (size, score), ((2 * size) ** 0.5, fresh))
            estimate = denoise(x, step.t).folded()
            of_x0, of_x = step.coefficients()
            x = combine((of_x0, estimate.x0), (of_x, x))
            if step.s.sigma > 0:
                x = combine((1.0, x), (step.small**0.5, noise(x)))
            yield State(x, estimate, index)

    def _size(self, estimate: Estimate, score: Tensor, fresh: Tensor) -> Scalar:
        """Step size ε: one for all, or one for each sample [B]."""
        if self.size == "level":
            return 2 * (self.snr * estimate.level.sigma) ** 2
        norms = [torch.linalg.vector_norm(each.flatten(1), dim=1) for each in (fresh, score)]
        size: Tensor = 2 * (self.snr * norms[0] / norms[1]) ** 2
        return size
