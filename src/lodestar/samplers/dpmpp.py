"""DPM-Solver++ of two steps' memory (Lu et al. 2022, "DPM-Solver++", algorithm 2 and section 5), as ODE and as SDE.

With λ = log(α/σ), h = λ_s − λ_t and D = x̂₀ + (x̂₀ − previous x̂₀)·h/(2·previous h):

    x_s = σ_s/σ_t·e^{−η·h}·x + α_s·(1 − e^{−(1+η)·h})·D + σ_s·√(1 − e^{−2·η·h})·z

η = 0 is the ODE, η = 1 the reverse SDE.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.base import Sampler, State, combine


class DPMpp(Sampler):
    """DPM-Solver++ 2M, second order with one evaluation a step; the first step and the one to clean data are of first order."""

    kind: Literal["dpmpp"] = "dpmpp"
    eta: float = Field(default=0.0, ge=0)
    """How much of the reverse SDE's noise is drawn: 0 none, 1 all of it."""
    solver: Literal["midpoint", "heun"] = "midpoint"
    """How the change of x̂₀ is weighed: (1 − e^{−(1+η)·h})/2, or 1 − (1 − e^{−(1+η)·h})/((1+η)·h)."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        if self.eta > 0:
            self.check_falling(steps)
        before: Tensor | None = None
        width_before = 0.0
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded()
            x0 = estimate.x0
            if s.sigma == 0:
                x = x0 * s.alpha
            else:
                width = float(s.half_logsnr - t.half_logsnr)
                reach = (1 + self.eta) * width
                gain = -math.expm1(-reach)
                # From pure noise the width is infinite, and 0·∞ is not 0.
                kept = math.exp(-self.eta * width) if self.eta > 0 else 1.0
                terms = [(s.sigma / t.sigma * kept, x)]
                if before is None:
                    terms.append((s.alpha * gain, x0))
                else:
                    weight = gain / 2 if self.solver == "midpoint" else 1 - gain / reach
                    change = s.alpha * weight * width / width_before
                    terms += [(s.alpha * gain + change, x0), (-change, before)]
                if self.eta > 0:
                    terms.append((s.sigma * math.sqrt(-math.expm1(-2 * self.eta * width)), noise(x)))
                x = combine(*terms)
                before, width_before = x0, width
            yield State(x, estimate, index)
