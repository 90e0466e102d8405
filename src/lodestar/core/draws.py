"""Which levels to train on: drawn in proportion to how large their losses have been (Improved DDPM, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor


class LossSecondMoment:
    """Draws steps of a chain with probability ∝ √E[loss²], from each step's latest losses; uniformly until every step has enough.

    It holds state: `history` and `counts` are what a resumed run needs.
    """

    def __init__(self, timesteps: int, history: int = 10, uniform: float = 0.001) -> None:
        """history: losses remembered a step; uniform: share of the draws that stays uniform."""
        self.history = torch.zeros(timesteps, history, dtype=torch.float64)
        """The latest losses of each step, the newest last."""
        self.counts = torch.zeros(timesteps, dtype=torch.int64)
        """How many losses each step remembers."""
        self.uniform = uniform

    def weights(self) -> Tensor:
        """Relative weights of the steps, float64 [T]; all 1 until every step's history is full."""
        timesteps, length = self.history.shape
        if bool((self.counts < length).any()):
            return torch.ones(timesteps, dtype=torch.float64)
        moment = self.history.square().mean(1).sqrt()
        return (1 - self.uniform) * moment / moment.sum() + self.uniform / timesteps

    def probabilities(self) -> Tensor:
        """What the steps are drawn with, float64 [T]."""
        weights = self.weights()
        return weights / weights.sum()

    def draw(self, count: int, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Steps 0 … T − 1, int64 [count], and the factors [count] of their losses that keep the mean loss unbiased."""
        steps = self.probabilities().multinomial(count, replacement=True, generator=rng)
        return steps, self.importance(steps)

    def importance(self, steps: Tensor) -> Tensor:
        """1/(T·p) of steps [N], float64."""
        return 1 / (len(self.counts) * self.probabilities()[steps])

    def update(self, steps: Tensor, losses: Tensor) -> None:
        """Remember the losses [N] of steps [N], in their order; the oldest ones of a full history go."""
        length = self.history.shape[1]
        for step, loss in zip(steps.tolist(), losses.tolist(), strict=True):
            if self.counts[step] == length:
                self.history[step] = self.history[step].roll(-1)
                self.history[step, -1] = loss
            else:
                self.history[step, self.counts[step]] = loss
                self.counts[step] += 1
