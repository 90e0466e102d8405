"""Linear multistep methods on d(x/α)/d(σ/α) = ε̂: the polynomial through the latest ε̂, integrated over the step.

In σ/α the polynomial gives Adams–Bashforth's method for uneven steps (k-diffusion's LMS); in log σ/α, DEIS (Zhang and Chen 2023,
"Fast sampling of diffusion models with exponential integrator", ρAB-DEIS in the variable of their code's "logrho").
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Taper, Term, Value, lead, steady, tapered
from lodestar.samplers.base import Sampler, State

_POINTS = {
    "ratio": ((-0.5773502691896257, 1.0), (0.5773502691896257, 1.0)),
    "log": (
        (-0.932469514203152, 0.1713244923791704),
        (-0.6612093864662645, 0.3607615730481386),
        (-0.2386191860831969, 0.467913934572691),
        (0.2386191860831969, 0.467913934572691),
        (0.6612093864662645, 0.3607615730481386),
        (0.932469514203152, 0.1713244923791704),
    ),
}
"""Gauss–Legendre points on [−1, 1] and their weights: two are exact for cubics, six suffice for the factor e^u of d(σ/α) =
e^u·du."""


class LMS(Sampler):
    """A linear multistep method, with one evaluation a step; the first steps are of lower order.

    Steps too wide for a higher order at their noise (not `steady`) are Euler's.
    """

    kind: Literal["lms"] = "lms"
    order: int = Field(default=4, ge=1, le=4)
    """Order of the method: number of ε̂ combined in a step."""
    variable: Literal["ratio", "log"] = "ratio"
    """Variable of the polynomial: σ/α, or its logarithm (DEIS), undefined for clean data: the last step is of first order."""
    taper: Taper = 4

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        past: list[Value] = []
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded()
            past = past[: tapered(self.order, self.taper, steps, index) - 1]
            terms: list[Term] = []
            if past and (s.sigma > 0 or self.variable == "ratio"):
                levels = [level for level, _ in past]
                factors = self._integrals(self._place(t), self._place(s), [self._place(level) for level in levels])
                weights = [float(s.alpha) * factor for factor in factors]
                if steady(t, s, *zip(weights, levels, strict=True)):
                    terms = [(weight, eps) for weight, (_, eps) in zip(weights, past, strict=True)]
            x = lead(estimate, s, *terms)
            # Pure noise has no finite position.
            past = [(t, estimate.eps), *past] if t.alpha > 0 else []
            yield State(x, estimate, index)

    def _place(self, level: Level) -> float:
        ratio = float(level.ratio)
        return ratio if self.variable == "ratio" else math.log(ratio)

    def _integrals(self, begin: float, end: float, past: list[float]) -> list[float]:
        """Integrals ∫ L_j d(σ/α) from `begin` to `end` of Lagrange's polynomials at the past places and `begin`."""
        middle, half = (begin + end) / 2, (end - begin) / 2
        totals = [0.0] * len(past)
        for point, weight in _POINTS[self.variable]:
            at = middle + half * point
            weight *= half if self.variable == "ratio" else half * math.exp(at)
            for j, place in enumerate(past):
                value = weight * (at - begin) / (place - begin)
                for other in past:
                    if other is not place:
                        value *= (at - other) / (place - other)
                totals[j] += value
        return totals
