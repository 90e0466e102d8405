"""Pseudo-numerical methods (Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds"): PLMS and PNDM.

DDIM's step, with Adams–Bashforth's combination of the latest four ε̂ for even steps in the place of ε̂ (equations 12 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Value, lead, steady
from lodestar.samplers.base import Sampler, State

_WEIGHTS: tuple[tuple[float, ...], ...] = ((), (-1 / 2,), (-16 / 12, 5 / 12), (-59 / 24, 37 / 24, -9 / 24))
"""Adams–Bashforth's weights of the past ε̂ for orders 1 to 4, the newest first; that of the present one is 1 less their sum."""


class PLMS(Sampler):
    """PLMS, second order in all (pseudo: the weights are those of even steps), with one evaluation a step and one for the first.

    The step to clean data is DDIM's, and so is one that is too wide for more at its noise (`steady`); after it the method begins
    anew.
    """

    kind: Literal["plms"] = "plms"
    warmup: Literal["heun", "runge_kutta"] = "heun"
    """Heun's method for the first step (two evaluations), or Runge and Kutta's for the first three (twelve), which is PNDM."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        past: list[Value] = []
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded()
            runs = self.warmup == "runge_kutta" and index < 3
            middle = step.levels.at(float(t.time + s.time) / 2) if runs and s.sigma > 0 else s
            width = float(s.sigma - s.alpha * t.ratio)
            if runs:
                weights = [(width / 3, middle), (width / 3, middle), (width / 6, s)]
            elif past:
                weights = [(width * weight, level) for weight, (level, _) in zip(_WEIGHTS[len(past)], past, strict=True)]
            else:
                weights = [(width / 2, s)]
            # The last stage of Runge and Kutta's method is one whole step along the ε̂ of the middle.
            if s.sigma == 0 or not steady(t, s, *([(width, middle)] if runs else weights)):
                x, past = lead(estimate, s), []
            else:
                if runs:
                    values = _runge_kutta(denoise, estimate, middle, s)
                else:
                    values = [eps for _, eps in past] or [_eps(denoise, estimate, s)]
                x = lead(estimate, s, *((weight, eps) for (weight, _), eps in zip(weights, values, strict=True)))
                past = [(t, estimate.eps), *past[:2]]
            yield State(x, estimate, index)


def _runge_kutta(denoise: Denoise, estimate: Estimate, middle: Level, s: Level) -> list[Tensor]:
    """The three ε̂ after the first of the classical fourth-order method, with DDIM's step as its stages (equation 13)."""
    second = _eps(denoise, estimate, middle)
    third = _eps(denoise, estimate, middle, second)
    return [second, third, _eps(denoise, estimate, s, third)]


def _eps(denoise: Denoise, estimate: Estimate, s: Level, along: Tensor | None = None) -> Tensor:
    """ε̂ at level s, where DDIM's step along the estimate's ε̂, or along another one, leads."""
    past = () if along is None else ((s.sigma - s.alpha * estimate.level.ratio, along),)
    return denoise(lead(estimate, s, *past), s).folded().eps
