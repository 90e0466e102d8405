"""UniPC, a predictor and a corrector of any order (Zhao et al. 2023, "UniPC", algorithms 5 to 8).

With λ = log(α/σ), h the width of a step, m₀ the value at its begin and m_j those at the places r_j·h from it, both

    x_s = kept·x + of·((1 − e^{−h})·m₀ + Σ_j a_j·(m_j − m₀)),  Σ_j a_j·r_j^k = g_k  for k = 1 … number of the m_j

where g_k = ∫ e^{τ − h}·(τ/h)^k dτ over 0 … h, so that g_k = 1 − k·g_{k−1}/h. The predictor has r_j < 0, the corrector r = 1 too:
the value that was found at the predicted x, so that it costs no evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import Sampler, State, Taper, Target, Term, combine, exponential, tapered


class UniPC(Sampler):
    """UniPC, of one order more than the predictor's, with one evaluation a step; the first steps are of lower order.

    What a state holds is predicted: it is corrected when the next evaluation is there.
    """

    kind: Literal["unipc"] = "unipc"
    order: int = Field(default=2, ge=1, le=4)
    """Of the predictor: how many values it combines."""
    solver: Literal["bh2", "bh1"] = "bh2"
    """Where a single a_j is left by order, a = B(h)/2 with B = 1 − e^{−h} (bh2) or h (bh1), as published."""
    target: Target = "x0"
    """What is taken to change slowly: x0, or epsilon."""
    taper: Taper = 2
    uncorrected: int = Field(default=0, ge=0, le=100_000)
    """So many of the first steps are not corrected, which strong guidance may make worse."""

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        past: list[tuple[float, Tensor]] = []
        begin, order = x, 1
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            if self.target == "epsilon":
                self.check_signal(step)
            estimate = denoise(x, t).folded()
            value = (float(t.half_logsnr), estimate.x0 if self.target == "x0" else estimate.eps)
            if past and index > self.uncorrected:
                x = self._step(steps[index - 1], begin, past[:order], value)
            # From pure noise every place is infinitely far: nothing of it can be interpolated.
            past = [value, *past[: self.order - 1]] if t.alpha > 0 else []
            begin = x
            order = min(tapered(self.order, self.taper, steps, index), len(past))
            x = estimate.x0 * s.alpha if s.sigma == 0 else self._step(step, x, past[:order] or [value])
            yield State(x, estimate, index)

    def _step(
        self, step: Transition, x: Tensor, values: list[tuple[float, Tensor]], ahead: tuple[float, Tensor] | None = None
    ) -> Tensor:
        """From x to step.s by the values (each with its λ) at step.t and before, the newest first, and perhaps the one at s."""
        kept, of, width = exponential(step.t, step.s, self.target)
        gain = -math.expm1(-width)
        (here, value), *others = values
        if ahead is not None:
            others.append(ahead)
        end = float(step.s.half_logsnr)
        places = [(place - here) / (end - here) for place, _ in others]
        if len(places) == 1:
            weights = [(gain if self.solver == "bh2" else width) / 2 / places[0]]
        else:
            weights = _weights(places, width, gain)
        moved: list[Term] = [(of * weight, other) for weight, (_, other) in zip(weights, others, strict=True)]
        return combine((kept, x), (of * gain - sum(factor for factor, _ in moved), value), *moved)


def _weights(places: list[float], width: float, gain: float) -> list[float]:
    """a_j with Σ_j a_j·r_j^k = g_k for k = 1 … number of places: a Vandermonde system, by Björck and Pereyra's elimination."""
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
