"""DPM-Solver++ as a single-step method, 2S and 3S (Lu et al. 2022, "DPM-Solver++" and "DPM-Solver", algorithms 1 and 2).

`order` steps of the plan make one step of the solver, and their ends are its stages, each taken from the first x. In even steps
of λ = log(α/σ) (plan ``logsnr:N``) these are the published stages, at r = 1/2, or 1/3 and 2/3. With ε̂ in place of x̂₀ this is
DPM-Solver; order 2 is k-diffusion's ``dpm_2``, and ``order=3,target=epsilon,solver=stages,fast=true`` is DPM-Solver-fast
("DPM-Solver", appendix D), with solver steps even in λ, each divided evenly into three steps of the plan, two at second order,
one at first.
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
    """Order of the solver: number of the plan's steps in one of the solver."""
    eta: float = Field(default=0.0, ge=0, le=100)
    """η, the fraction of the posterior's noise drawn afresh after each step of the solver (k-diffusion's 2S "ancestral")."""
    solver: Literal["midpoint", "heun", "stages"] = "midpoint"
    """Weights of the changes of x̂₀: the newest alone (midpoint), the Taylor expansion (heun), or Taylor in the stages and the
    newest alone at the end (stages; DPM-Solver-3 as first published)."""
    target: Target = "x0"
    """Slowly changing quantity: x0, or epsilon (DPM-Solver)."""
    fast: bool = False
    """End whole solver steps with one of lower order and one of first order (DPM-Solver-fast)."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def _redrawn(self, steps: Sequence[Transition]) -> Sequence[Transition]:
        # Stages may be anywhere: k-diffusion has one below the end of the step.
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
