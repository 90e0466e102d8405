"""What a sampler is: a denoiser, a noisy x and a list of steps in; a stream of states out."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise, Estimate, Noise, check_renoising, check_shifting
from lodestar.core.transition import Transition


@dataclass(frozen=True, slots=True)
class State:
    """Where sampling stands after one step."""

    x: Tensor
    """The sample [B, ...] at the level where the step led."""
    estimate: Estimate
    """What was believed at the level where the step began, guidance included as far as this sampler applies it to x̂₀."""
    index: int
    """The number of the step, from 0; of an adaptive sampler, of the plan's step that it is in or has just done."""


class Sampler(Config, abc.ABC):
    """An algorithm that turns noise into data. It is its own configuration, and holds no state: histories are local variables.

    The levels of the steps are scalars: one for the whole batch.
    """

    kind: str

    @property
    def stochastic(self) -> bool:
        """Whether it draws noise on the way; if not, the picture depends on the first x alone."""
        return False

    @property
    def adaptive(self) -> bool:
        """Whether it chooses its steps by the pictures, so that each is to be sampled by itself. Of the steps that it is given
        only the two ends count, and there are more states or fewer than steps."""
        return False

    @property
    def renoises(self) -> bool:
        """Whether it can put back other noise than x̂₀'s own (`Estimate.renoise`)."""
        return False

    @property
    def shifts(self) -> bool:
        """Whether it applies a collected gradient in a way of its own, which x̂₀ need not express (`Estimate.shift`)."""
        return False

    def check(
        self, steps: Sequence[Transition], *, renoiser: str | None = None, shifted: bool = False, learned: bool = True
    ) -> None:
        """Raise the Problem that a run of these steps would raise, before any work; every run begins with it.

        renoiser: who wants other noise put back, in words, as `Estimate.renoiser`; None where nobody does. shifted: guidance
        collects a gradient at the first level (`Estimate.shift`). learned: the model has a variance of its own, or may have.
        """
        self._check_steps(steps)
        if renoiser is not None and not self.renoises:
            check_renoising(renoiser)
        if shifted and not self.shifts and steps:
            check_shifting(steps[0].t)

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        """Raise Problem where the steps themselves are not for this sampler."""
        if self.stochastic and any(step.beta < 0 for step in self._redrawn(steps)):
            raise Problem(f"sampler {self.kind}: inversion needs one that draws no noise, such as ddim, euler or dpmpp")

    def _redrawn(self, steps: Sequence[Transition]) -> Sequence[Transition]:
        """The steps after which a stochastic sampler draws noise, which cannot be undone: they have to fall in noise."""
        return steps

    @abc.abstractmethod
    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        """Take the steps in order, from x [B, ...] at the level steps[0].t, and yield a state after each of them."""


def last(states: Iterable[State]) -> Tensor:
    """The final sample [B, ...] of a run of at least one step."""
    final = deque(states, maxlen=1)
    assert final, "no steps"
    return final[0].x
