"""UniPC, a predictor and a corrector of any order (Zhao et al. 2023, "UniPC", algorithms 5 to 8).

With λ = log(α/σ), h the width of a step, m₀ the value at its begin and m_j the values at distances r_j·h, both are

    x_s = kept·x + of·((1 − e^{−h})·m₀ + Σ_j a_j·(m_j − m₀)),  Σ_j a_j·r_j^k = g_k  for k = 1 … number of the m_j

where g_k = ∫ e^{τ − h}·(τ/h)^k dτ over 0 … h, so g_k = 1 − k·g_{k−1}/h. The predictor has r_j < 0, the corrector r = 1 too: the
value evaluated at the predicted x, at no extra cost.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Taper, Target, Term, Value, combine, euler, exponential, steady, tapered
from lodestar.samplers.base import Sampler, State


class UniPC(Sampler):
    """UniPC, of one order more than the predictor, with one evaluation a step; the first steps are of lower order.

    States hold the predicted x; the correction follows with the next evaluation.
    """

    kind: Literal["unipc"] = "unipc"
    order: int = Field(default=2, ge=1, le=4)
    """Order of the predictor: number of values combined."""
    solver: Literal["bh2", "bh1"] = "bh2"
    """B(h) of the coefficient a = B(h)/2 where the order leaves a single one: 1 − e^{−h} (bh2) or h (bh1), as published."""
    target: Target = "x0"
    """Slowly changing quantity: x0, or epsilon."""
    taper: Taper = 2
    uncorrected: int = Field(default=0, ge=0, le=100_000)
    """Number of initial steps without correction, which strong guidance may make worse."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        past: list[Value] = []
        begin, order = x, 1
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded()
            value = (t, estimate.x0 if self.target == "x0" else estimate.eps)
            if past and index > self.uncorrected:
                terms = self._terms(t, begin, past[:order], value)
                x = combine(*terms) if terms else x
            # From pure noise every distance is infinite: nothing can be interpolated.
            past = [value, *past[: self.order - 1]] if t.alpha > 0 else []
            begin = x
            order = min(tapered(self.order, self.taper, steps, index), len(past))
            if s.sigma == 0:
                x = estimate.x0 * s.alpha
            else:
                x = combine(*(self._terms(s, x, past[:order]) or euler(replace(estimate, x=x), s)))
            yield State(x, estimate, index)

    def _terms(self, s: Level, x: Tensor, values: list[Value], ahead: Value | None = None) -> list[Term]:
        """Terms of the step to s from x at the first value's level, by the present and past values, and optionally the one at s.

        None without values, or if differences of ε̂ are not `steady`.
        """
        if not values:
            return []
        (t, value), *others = values
        kept, of, width = exponential(t, s, self.target)
        gain = -math.expm1(-width)
        if ahead is not None:
            others.append(ahead)
        here, end = float(t.half_logsnr), float(s.half_logsnr)
        places = [(float(level.half_logsnr) - here) / (end - here) for level, _ in others]
        if len(places) == 1:
            weights = [(gain if self.solver == "bh2" else width) / 2 / places[0]]
        else:
            weights = _weights(places, width, gain)
        factors = [of * weight for weight in weights]
        if self.target == "epsilon" and not steady(t, s, *zip(factors, (level for level, _ in others), strict=True)):
            return []
        moved = [(factor, other) for factor, (_, other) in zip(factors, others, strict=True)]
        return [(kept, x), (of * gain - sum(factors), value), *moved]


def _weights(places: list[float], width: float, gain: float) -> list[float]:
    """Weights a_j with Σ_j a_j·r_j^k = g_k for k = 1 … number of places: a Vandermonde system, by Björck and Pereyra's
    elimination."""
    count, solution, moment = len(places), [], gain
    for k in range(1, count + 1):
        moment = 1 - k * moment / width
        solution.append(moment)
    for k in range(count - 1):
        for i in range(count - 1, k, -1):
            solution[i] -= places[k] * solution[i - 1]
    for k in range(count - 2, -1, -1):
        for i in range(k + 1, count):
            solution[i] /= places[i] - places[i - k - 1]
        for i in range(k, count - 1):
            solution[i] -= solution[i + 1]
    return [each / place for each, place in zip(solution, places, strict=True)]
