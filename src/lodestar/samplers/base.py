"""Samplers: a denoiser, a noisy x and a list of steps in; a stream of states out."""

from __future__ import annotations

import abc
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise, Estimate, Noise, check_renoising, check_shifting
from lodestar.core.transition import Transition


@dataclass(frozen=True, slots=True)
class State:
    """The state of sampling after one step."""

    x: Tensor
    """The sample [B, ...] at the level after the step."""
    estimate: Estimate
    """The estimate at the level before the step, with guidance as far as this sampler applies it to x̂₀."""
    index: int
    """Number of the step, from 0; for an adaptive sampler, of the plan's step in progress or just done."""


class Sampler(Config, abc.ABC):
    """A sampling algorithm, which turns noise into data. The object is its own configuration and stateless: histories are local.

    The levels of the steps are scalars: one for the whole batch.
    """

    kind: str

    @property
    def stochastic(self) -> bool:
        """True if noise is drawn during sampling; otherwise the picture depends on the first x alone."""
        return False

    @property
    def adaptive(self) -> bool:
        """True if the steps are chosen by the pictures' errors, so pictures are to be sampled one by one. Only the two ends of
        the given steps count, and the number of states differs from theirs."""
        return False

    @property
    def renoises(self) -> bool:
        """True if CFG++ is supported, which adds back another estimate's noise (`Estimate.renoise`)."""
        return False

    @property
    def shifts(self) -> bool:
        """True if a collected gradient is applied in the sampler's own way, without changing x̂₀ (`Estimate.shift`)."""
        return False

    def alone(self, count: int) -> Self:
        """The sampler that takes each of the `count` steps of a run by itself."""
        return self

    def check(
        self, steps: Sequence[Transition], *, renoiser: str | None = None, shifted: bool = False, learned: bool = True
    ) -> None:
        """Raise the Problem of a run with these steps, before any work; every run begins with this check.

        renoiser: name of the guidance that needs CFG++'s noise, as `Estimate.renoiser`; None without. shifted: guidance collects
        a gradient at the first level (`Estimate.shift`). learned: the model has, or may have, a learned variance.
        """
        self._check_steps(steps)
        if renoiser is not None and not self.renoises:
            check_renoising(renoiser)
        if shifted and not self.shifts and steps:
            check_shifting(steps[0].t)

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        """Raise Problem where the steps themselves are unsuitable for this sampler."""
        if self.stochastic and any(step.beta < 0 for step in self._redrawn(steps)):
            raise Problem(f"sampler {self.kind}: inversion needs one that draws no noise, such as ddim, euler or dpmpp")

    def _redrawn(self, steps: Sequence[Transition]) -> Sequence[Transition]:
        """The steps followed by fresh noise, which cannot be inverted: they have to fall in noise."""
        return steps

    @abc.abstractmethod
    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        """Take the steps in order, from x [B, ...] at the level steps[0].t, and yield a state after each."""


def last(states: Iterable[State]) -> Tensor:
    """The final sample [B, ...] of a run of at least one step."""
    final = deque(states, maxlen=1)
    assert final, "no steps"
    return final[0].x
