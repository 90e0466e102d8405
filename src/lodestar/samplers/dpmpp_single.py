"""DPM-Solver++ without memory (Lu et al. 2022, "DPM-Solver++", algorithm 1; "DPM-Solver", algorithms 1 and 2): 2S and 3S.

`order` steps of the plan are one step of the solver, whose stages end where they end: from the first of them on, every stage
begins again at the first x. In even steps of λ = log(α/σ) (plan ``logsnr:N``) they are the published stages, at r = 1/2, or 1/3
and 2/3. With ε̂ in the place of x̂₀ it is DPM-Solver; of order 2 that is k-diffusion's ``dpm_2``, and
``order=3,target=epsilon,solver=stages,fast=true`` is DPM-Solver-fast ("DPM-Solver", appendix D), where the steps of the solver
are even in λ, and those of the plan each a third of one, a half of the one of second order, or all of the one of first.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Target, blocks, combine, refresh, single
from lodestar.samplers.base import Sampler, State


class DPMppSingle(Sampler):
    """DPM-Solver++ 2S, or 3S; one evaluation a step of the plan. Steps that are left over, and the last, are of lower order."""

    kind: Literal["dpmpp_single"] = "dpmpp_single"
    order: Literal[2, 3] = 2
    """How many steps of the plan make one of the solver."""
    eta: float = Field(default=0.0, ge=0, le=100)
    """The part of the posterior's noise that is drawn afresh after each step of the solver (k-diffusion's 2S "ancestral")."""
    solver: Literal["midpoint", "heun", "stages"] = "midpoint"
    """How the changes of x̂₀ are weighed: by the newest alone, as the Taylor expansion has them, or so in the stages and by the
    newest alone at the end of a step of the solver (DPM-Solver-3 as first published)."""
    target: Target = "x0"
    """What is taken to change slowly: x0, or epsilon (DPM-Solver)."""
    fast: bool = False
    """Where the noisy steps are whole steps of the solver, end with one of lower order and one of first (DPM-Solver-fast)."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def _redrawn(self, steps: Sequence[Transition]) -> Sequence[Transition]:
        # Where the stages are does not matter: k-diffusion has one below the end of the step.
        return [Transition(block[0].t, block[-1].s) for block in blocks(steps, self.order, self.fast)]

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        index = 0
        for block in blocks(steps, self.order, self.fast):
            begin = block[0].t
            estimates: list[Estimate] = []
            for step in block:
                estimate = denoise(x, step.t).folded()
                estimates.append(estimate)
                std, goal = 0.0, step.s
                if self.eta > 0 and step is block[-1]:
                    std, deviation = refresh(Transition(begin, step.s), self.eta)
                    goal = replace(goal, sigma=deviation)
                expand = self.solver == "heun" or (self.solver == "stages" and step is not block[-1])
                x = combine(*single(estimates, goal, self.target, expand)) if goal.sigma > 0 else estimate.x0 * goal.alpha
                if std > 0:
                    x = combine((1.0, x), (std, noise(x)))
                yield State(x, estimate, index)
                index += 1
