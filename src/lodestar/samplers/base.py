"""What a sampler is: a denoiser, a noisy x and a list of steps in; a stream of states out."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Level, Scalar, spread
from lodestar.core.transition import Transition


@dataclass(frozen=True, slots=True)
class State:
    """Where sampling stands after one step."""

    x: Tensor
    """The sample [B, ...] at the level where the step led."""
    estimate: Estimate
    """What was believed at the level where the step began, guidance included as far as this sampler applies it to x̂₀."""
    index: int
    """The number of the step, from 0."""


class Sampler(Config, abc.ABC):
    """An algorithm that turns noise into data. It is its own configuration, and holds no state: histories are local variables.

    The levels of the steps are scalars: one for the whole batch.
    """

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise on the way; if not, the picture depends on the first x alone."""
        return False

    def check_falling(self, steps: Sequence[Transition]) -> None:
        """Raise Problem where a step rises in noise, as inversion does: fresh noise cannot be undone."""
        if any(step.beta < 0 for step in steps):
            raise Problem(f"sampler {self.kind}: inversion needs one without noise: ddim or dpmpp with eta 0, euler, heun")  # type: ignore[attr-defined]

    @abc.abstractmethod
    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        """Take the steps in order, from x [B, ...] at the level steps[0].t, and yield a state after each of them."""


def last(states: Iterable[State]) -> Tensor:
    """The final sample [B, ...] of a run of at least one step."""
    final = deque(states, maxlen=1)
    assert final, "no steps"
    return final[0].x


def combine(*terms: tuple[Scalar, Tensor]) -> Tensor:
    """Σ factor·tensor, with as few tensor operations as there are terms."""
    (factor, tensor), *rest = terms
    total = tensor * spread(factor, tensor)
    for factor, tensor in rest:
        total = total + spread(factor, tensor) * tensor if isinstance(factor, Tensor) else torch.add(total, tensor, alpha=factor)
    return total


def follow(t: Level, s: Level, deviation: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """Factors of x̂₀ and x in α_s·x̂₀ + deviation·ε̂, where ε̂ = (x − α_t·x̂₀)/σ_t; the deviation is σ_s if not given.

    With σ_s it is Euler's step of the probability-flow ODE in x/α over σ/α, and DDIM's at η = 0: the two are one.
    """
    slope = (s.sigma if deviation is None else deviation) / t.sigma
    return s.alpha - slope * t.alpha, slope
