"""Pseudo-numerical methods (Liu et al. 2022, "Pseudo numerical methods for diffusion models on manifolds"): PLMS and PNDM.

DDIM's step, with Adams–Bashforth's combination of the latest four ε̂ for even steps in place of ε̂ (equations 12 and 13).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Term, Value, lead, steady
from lodestar.samplers.base import Sampler, State

_WEIGHTS: tuple[tuple[float, ...], ...] = ((1 / 2,), (-1 / 2,), (-16 / 12, 5 / 12), (-59 / 24, 37 / 24, -9 / 24))
"""Adams–Bashforth's weights of the past ε̂ for orders 2 to 4, the newest first; the present one has 1 less their sum. The first
is Heun's weight of the next ε̂, in the absence of past ones."""


class PLMS(Sampler):
    """PLMS, second order in all (pseudo: the weights assume even steps), with one evaluation a step and one more for the first.

    DDIM's step replaces the step to clean data and steps too wide for a higher order at their noise (not `steady`); the method
    restarts afterwards.
    """

    kind: Literal["plms"] = "plms"
    warmup: Literal["heun", "runge_kutta"] = "heun"
    """Heun's method for the first step (two evaluations), or the Runge–Kutta method for the first three (twelve), which is
    PNDM."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        past: list[Value] = []
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded()
            others: list[Term] = []
            if step.s.sigma > 0:
                runs = self.warmup == "runge_kutta" and index < 3
                others = _runge_kutta(denoise, estimate, step) if runs else _multistep(denoise, estimate, step.s, past)
            x = lead(estimate, step.s, *others)
            past = [(step.t, estimate.eps), *past[:2]] if others else []
            yield State(x, estimate, index)


def _multistep(denoise: Denoise, estimate: Estimate, s: Level, past: list[Value]) -> list[Term]:
    """The past ε̂, or the ε̂ at s without past ones, with their weights; none if not steady."""
    width, levels = _width(estimate.level, s), [level for level, _ in past] or [s]
    weights = [width * weight for weight in _WEIGHTS[len(past)]]
    if not steady(estimate.level, s, *zip(weights, levels, strict=True)):
        return []
    values = [eps for _, eps in past] or [_eps(denoise, estimate, s)]
    return list(zip(weights, values, strict=True))


def _runge_kutta(denoise: Denoise, estimate: Estimate, step: Transition) -> list[Term]:
    """The ε̂ of the classical fourth-order Runge–Kutta method after the first, with DDIM's step for its stages (equation 13).

    None if not steady: the stages build on each other, so each counts as a step of full width.
    """
    t, s = step.t, step.s
    width, middle = _width(t, s), step.levels.halfway(t, s)
    if not steady(t, s, (width, middle), (width, middle), (width, s)):
        return []
    second = _eps(denoise, estimate, middle)
    third = _eps(denoise, estimate, middle, second)
    fourth = _eps(denoise, estimate, s, third)
    return [(width / 3, second), (width / 3, third), (width / 6, fourth)]


def _width(t: Level, s: Level) -> float:
    """The factor of ε̂ in x over a step."""
    return float(s.sigma - s.alpha * t.ratio)


def _eps(denoise: Denoise, estimate: Estimate, s: Level, along: Tensor | None = None) -> Tensor:
    """ε̂ at level s, at the end of DDIM's step along the estimate's ε̂ (default) or along another."""
    past = () if along is None else ((_width(estimate.level, s), along),)
    return denoise(lead(estimate, s, *past), s).folded().eps
