"""DPM-Solver++ without memory (Lu et al. 2022, "DPM-Solver++", algorithm 1; "DPM-Solver", algorithms 1 and 2): 2S and 3S.

`order` steps of the plan are one step of the solver, whose stages end where they end: from the first of them on, every stage
begins again at the first x. In even steps of λ = log(α/σ) (plan ``logsnr:N``) they are the published stages, at r = 1/2, or 1/3
and 2/3. With ε̂ in the place of x̂₀ it is DPM-Solver; of order 2 that is k-diffusion's ``dpm_2``.
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
from lodestar.samplers.base import Sampler, State, Target, Term, blocks, combine, exponential, refresh


class DPMppSingle(Sampler):
    """DPM-Solver++ 2S, or 3S; one evaluation a step of the plan. Steps that are left over, and the last, are of lower order."""

    kind: Literal["dpmpp_single"] = "dpmpp_single"
    order: Literal[2, 3] = 2
    """How many steps of the plan make one of the solver."""
    eta: float = Field(default=0.0, ge=0)
    """The part of the posterior's noise that is drawn afresh after each step of the solver (k-diffusion's 2S "ancestral")."""
    solver: Literal["midpoint", "heun"] = "midpoint"
    """How the changes of x̂₀ are weighed: by the newest alone, or as the Taylor expansion has them."""
    target: Target = "x0"
    """What is taken to change slowly: x0, or epsilon (DPM-Solver)."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        index = 0
        for block in blocks(steps, self.order):
            first, begin = x, block[0].t
            if self.eta > 0:
                # Where the stages are does not matter: k-diffusion has one below the end of the step.
                self.check_falling([Transition(begin, block[-1].s)])
            values: list[tuple[float, Tensor]] = []
            for step in block:
                if self.target == "epsilon":
                    self.check_signal(step)
                estimate = denoise(x, step.t).folded()
                values.append((float(step.t.half_logsnr), estimate.x0 if self.target == "x0" else estimate.eps))
                std, goal = 0.0, step.s
                if self.eta > 0 and step is block[-1]:
                    std, deviation = refresh(Transition(begin, step.s), self.eta)
                    goal = replace(goal, sigma=deviation)
                x = combine(*self._terms(begin, goal, first, values)) if goal.sigma > 0 else estimate.x0 * goal.alpha
                if std > 0:
                    x = combine((1.0, x), (std, noise(x)))
                yield State(x, estimate, index)
                index += 1

    def _terms(self, t: Level, s: Level, x: Tensor, values: list[tuple[float, Tensor]]) -> list[Term]:
        """The step from x at t to s, from the values at t and at the stages so far, each with its λ."""
        kept, of, width = exponential(t, s, self.target)
        gain = -math.expm1(-width)
        (begin, value), *stages = values
        if not stages:
            return [(kept, x), (of * gain, value)]
        changes = [(abs(width) / abs(place - begin), stage) for place, stage in stages]
        phi_2 = 1 - gain / width
        if len(changes) == 1:
            weights = [of * (gain / 2 if self.solver == "midpoint" else phi_2)]
        elif self.solver == "midpoint":
            weights = [0.0, of * phi_2]
        else:
            (inverse_1, _), (inverse_2, _) = changes
            apart, phi_3 = 1 / inverse_2 - 1 / inverse_1, phi_2 / width - 0.5
            weights = [of * (phi_2 / inverse_2 + 2 * phi_3) / apart, -of * (phi_2 / inverse_1 + 2 * phi_3) / apart]
        moved: list[Term] = [(weight * inverse, stage) for weight, (inverse, stage) in zip(weights, changes, strict=True)]
        return [(kept, x), (of * gain - sum(factor for factor, _ in moved), value), *moved]
