"""DPM-Solver-12 and -23 with adaptive step sizes (Lu et al. 2022, "DPM-Solver", appendix C), as in k-diffusion.

A step is taken twice from the same values of ε̂, by a solver of the order and by one of an order less. With δ = max(atol,
rtol·max(|lower|, |lower at the step before|)), all in x/α, the error is

    E = √mean(((higher − lower)/δ)²)

With r = 1/E, a PID controller multiplies the width of the next step, in λ = log(α/σ), by

    1 + atan(r^((p + i + d)/order) / r₁^((p + 2·d)/order) · r₂^(d/order) − 1)

where r₁ and r₂ are of the two steps accepted before. If this factor is below `accept_safety`, the step is repeated with the
smaller width. (The paper has x for x/α and 0.9·r^(1/order), and accepts where E ≤ 1.)
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine, single
from lodestar.samplers.base import Sampler, State

SHORTEST = 1e-6
"""Least width of a step in λ: below, the two solvers differ by rounding alone."""


class DPMAdaptive(Sampler):
    """DPM-Solver with adaptive steps, from the plan's first level to its last noisy one, ignoring those between; then to x̂₀.

    Deterministic; `order` evaluations a step, one fewer for a repeated step. The error depends on the whole batch, so models
    sample each picture by itself, independent of its neighbours. Guidance with momentum (apg) restarts at a repeated step. Raises
    Problem where no step is short enough.
    """

    kind: Literal["dpm_adaptive"] = "dpm_adaptive"
    order: Literal[2, 3] = 3
    """Order of the solver: 2 is DPM-Solver-12, 3 is -23."""
    rtol: float = Field(default=0.05, ge=0, le=1e9)
    """Allowed error of a step, relative to x/α including its noise: nearly pure noise is hardly controlled. On a chain with high
    initial σ/α the published 0.05 and 0.0078 are less exact than even steps at equal cost; 0.01 and 0.002 are for exactness."""
    atol: float = Field(default=0.0078, ge=1e-12, le=1e9)
    """Allowed absolute error of a step, in units of the data: 1/128 is one level of 255."""
    h_init: float = Field(default=0.05, ge=SHORTEST, le=100)
    """Width of the first step in λ."""
    pcoeff: float = Field(default=0.0, ge=0, le=1)
    """p, the controller's proportional coefficient."""
    icoeff: float = Field(default=1.0, gt=0, le=1)
    """i, the controller's integral coefficient."""
    dcoeff: float = Field(default=0.0, ge=0, le=1)
    """d, the controller's derivative coefficient."""
    accept_safety: float = Field(default=0.81, gt=0, le=1)
    """Least factor for the width of the next step with which a step is accepted."""

    @property
    def adaptive(self) -> bool:
        return True

    def _check_steps(self, steps: Sequence[Transition]) -> None:
        super()._check_steps(steps)
        if steps and steps[0].t.alpha == 0:
            raise Problem(
                f"sampler {self.kind} cannot begin at pure noise (a schedule of zero terminal signal): use ddim or dpmpp"
            )

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        if not steps:
            return
        level, final, ends = steps[0].t, steps[-1], [float(step.s.half_logsnr) for step in steps]
        to_clean = final.s.sigma == 0
        end = final.t if to_clean else final.s
        here, goal = float(level.half_logsnr), float(end.half_logsnr)
        sign = math.copysign(1, goal - here)
        width, before = self.h_init, x / level.alpha
        past: tuple[float, float] | None = None
        while level is not end:
            estimate = denoise(x, level).folded()
            while True:
                if not width >= SHORTEST:
                    raise Problem(
                        f"sampler {self.kind}: at σ/α = {level.ratio:.3g} no step is short enough for rtol {self.rtol:g} and "
                        f"atol {self.atol:g}: allow more"
                    )
                left = abs(goal - here)
                # A rest as small as rounding is no step.
                to = end if width >= left - SHORTEST else steps[0].levels.at_ratio(math.exp(-here - sign * width))
                lower, higher = self._step(denoise, estimate, Transition(level, to, schedule=steps[0].schedule))
                scaled = lower / to.alpha
                allowed = torch.maximum(scaled.abs(), before.abs()).mul(self.rtol).clamp_min(self.atol)
                error = float(((higher / to.alpha - scaled) / allowed).detach().square().mean().sqrt())
                # Bounded, so neither an exact step nor a wild one makes the controller's powers infinite.
                good = 1 / min(error + 1e-8, 1e8)
                past = past or (good, good)
                factor = self._factor(good, *past)
                width *= factor
                if factor >= self.accept_safety:
                    break
                # Cut short by the end again, the step would be the same, with the same error.
                while width >= left - SHORTEST:
                    width *= factor
            past = (good, past[0])
            x, before, level, here = higher, scaled, to, float(to.half_logsnr)
            # The step of the plan in progress or, if none, the last one ended here.
            index = next(k for k, place in enumerate(ends) if sign * (place - here) >= 0)
            yield State(x, estimate, index)
        if to_clean:
            estimate = denoise(x, end).folded()
            yield State(estimate.x0 * final.s.alpha, estimate, len(steps) - 1)

    def _step(self, denoise: Denoise, estimate: Estimate, step: Transition) -> tuple[Tensor, Tensor]:
        """The two solutions at the end of the step: of one order less, and of the order."""
        here, width = float(step.t.half_logsnr), float(step.s.half_logsnr - step.t.half_logsnr)
        estimates = [estimate]
        for k in range(1, self.order):
            stage = step.levels.at_ratio(math.exp(-here - k / self.order * width))
            ahead = combine(*single(estimates, stage, "epsilon", expand=True))
            estimates.append(denoise(ahead, stage).folded())
        lower, higher = (combine(*single(known, step.s, "epsilon", expand=False)) for known in (estimates[:-1], estimates))
        return lower, higher

    def _factor(self, good: float, good_1: float, good_2: float) -> float:
        """Factor for the width of the next step, by 1/E of this step and of the two accepted before."""
        p, i, d = self.pcoeff, self.icoeff, self.dcoeff
        change = good ** (p + i + d) * good_1 ** -(p + 2 * d) * good_2**d
        return 1 + math.atan(change ** (1 / self.order) - 1)
