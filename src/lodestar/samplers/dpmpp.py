"""DPM-Solver++ as a multistep method (Lu et al. 2022, "DPM-Solver++", algorithm 2 and appendix B), ODE and SDE: 1M, 2M and 3M.

With λ = log(α/σ), h = λ_s − λ_t, H = (1 + η)·h and D₁, D₂ the first and second differences of x̂₀, scaled to h:

    x_s = σ_s/σ_t·e^{−η·h}·x + α_s·((1 − e^{−H})·x̂₀ + φ₂·D₁ − φ₃·D₂) + σ_s·√(1 − e^{−2·η·h})·z
    φ₂ = 1 − (1 − e^{−H})/H,  φ₃ = φ₂/H − 1/2

η = 0 is the ODE, η = 1 the reverse SDE. With ε̂ in place of x̂₀ this is DPM-Solver (Lu et al. 2022).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Taper, Target, Term, Value, combine, euler, exponential, renoised, steady, tapered
from lodestar.samplers.base import Sampler, State


class DPMpp(Sampler):
    """DPM-Solver++ 2M, with one evaluation a step; the first step and the one to clean data are of first order.

    3M is as published, with half of the exact weight of D₂: its error is smaller than 2M's, its order the same.
    """

    kind: Literal["dpmpp"] = "dpmpp"
    eta: float = Field(default=0.0, ge=0, le=100)
    """η, the fraction of the reverse SDE's noise: 0 none, 1 all."""
    solver: Literal["midpoint", "heun"] = "midpoint"
    """Weight of the change of x̂₀ after a single previous value: (1 − e^{−H})/2 (midpoint), or φ₂ (heun)."""
    order: Literal[1, 2, 3] = 2
    """Order of the solver: number of x̂₀ combined in a step."""
    target: Target = "x0"
    """Slowly changing quantity: x0, or epsilon (DPM-Solver)."""
    taper: Taper = 2

    @model_validator(mode="after")
    def _sde_of_x0(self) -> Self:
        if self.eta > 0 and self.target != "x0":
            raise Problem(f"sampler dpmpp: eta is {self.eta:g} and target {self.target!r}: only target 'x0' draws noise")
        return self

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def renoises(self) -> bool:
        return True

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        past: list[tuple[float, Value]] = []
        for index, step in enumerate(steps):
            t, s = step.t, step.s
            estimate = denoise(x, t).folded(self.renoises)
            base, added = renoised(estimate, s)
            if s.sigma == 0:
                x = estimate.x0 * s.alpha
            elif t.alpha == 0 and self.target == "epsilon":
                x = combine(*euler(base, s), *added)
            else:
                order = tapered(self.order, self.taper, steps, index)
                kept, of, width = exponential(t, s, self.target)
                past = [(width, (t, base.x0 if self.target == "x0" else base.eps)), *past[: order - 1]]
                terms = [*self._terms(base, s, kept, of, past), *added]
                if self.eta > 0:
                    terms.append((s.sigma * math.sqrt(-math.expm1(-2 * self.eta * width)), noise(x)))
                x = combine(*terms)
            yield State(x, estimate, index)

    def _terms(self, estimate: Estimate, s: Level, kept: float, of: float, past: list[tuple[float, Value]]) -> list[Term]:
        """Terms of the step from the estimate's level to s, without noise, by up to three values, the newest first.

        Each value comes with the width of the step that was taken from it, or is to be.
        """
        widths = [width for width, _ in past]
        (_, (t, now)), *before = past
        reach = (1 + self.eta) * widths[0]
        gain = -math.expm1(-reach)
        if self.eta > 0:
            # From pure noise the width is infinite, and 0·∞ is not 0.
            kept *= math.exp(-self.eta * widths[0])
        factors = self._factors(of, reach, gain, widths)
        if self.target == "epsilon":
            levels = [level for _, (level, _) in before]
            if not before or not steady(t, s, *zip(factors, levels, strict=True)):
                return euler(estimate, s)
        moved = [(factor, value) for factor, (_, (_, value)) in zip(factors, before, strict=True)]
        return [(kept, estimate.x), (of * gain - sum(factors), now), *moved]

    def _factors(self, of: float, reach: float, gain: float, widths: list[float]) -> list[float]:
        """Factors of the past values, given the widths of this step and of the steps from these values."""
        width, *before = widths
        if not before:
            return []
        if len(before) == 1:
            weight = gain / 2 if self.solver == "midpoint" else 1 - gain / reach
            return [-of * weight * width / before[0]]
        width_1, width_2 = before
        phi_2 = 1 - gain / reach
        phi_3 = phi_2 / reach - 0.5
        # D₁ and D₂ in terms of (now − before)/r₁ and (before − first)/r₂.
        older = of * (phi_2 * width_1 / width - phi_3) * width / (width_1 + width_2)
        newer = (of * phi_2 + older) * width / width_1
        older *= width / width_2
        return [-newer - older, older]
