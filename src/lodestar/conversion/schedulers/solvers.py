"""diffusers' exponential integrators: DPM-Solver and DPM-Solver++ (multistep and singlestep), UniPC and DEIS."""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

import torch
from pydantic import Field

from lodestar.config import Problem
from lodestar.conversion.schedulers.base import (
    UNCLEAR,
    Chained,
    Flow,
    Scheduler,
    Sigmas,
    Spaced,
    Thresholded,
    as_sampler,
    spaced,
)
from lodestar.conversion.schedulers.sigmas import BOUND, STEPS
from lodestar.conversion.settings import Idle, Only
from lodestar.denoiser import Variance
from lodestar.samplers import LMS, AnySampler

_FEW = 15
"""Least number of steps without diffusers' lower order at the end."""

Algorithm = Annotated[
    str,
    Only(("dpmsolver++", "dpmsolver", "sde-dpmsolver++", "deis"), "samplers here draw fresh noise with x̂₀, not with ε̂"),
]
SolverType = Literal["midpoint", "heun", "logrho", "bh1", "bh2"]
Learned = Annotated[str | None, Only((None, "fixed_small", "fixed_large", "learned_range"), f"of 'learned', {UNCLEAR}")]


class Solving(Scheduler):
    """The common settings of DPM-Solver's classes."""

    solver_order: Literal[1, 2, 3] = 2
    algorithm_type: Algorithm = "dpmsolver++"
    solver_type: SolverType = "midpoint"
    lower_order_final: Annotated[bool, Idle(f"it is for plans of fewer than {_FEW} steps, where `taper` is")] = True
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    @property
    def clean(self) -> bool:
        """True if the last step leads to clean data."""
        return self.final_sigmas_type == "zero"

    def solver(self) -> dict[str, Any]:
        """The settings of our sampler. Raises Problem for values refused by the class itself."""
        target = "epsilon" if self.algorithm_type == "dpmsolver" else "x0"
        if target == "epsilon" and self.clean:
            raise Problem("algorithm_type is 'dpmsolver' and final_sigmas_type 'zero': diffusers has it with 'sigma_min' alone")
        solver = "heun" if self.solver_type == "heun" else "midpoint"
        return {"order": self.solver_order, "target": target, "solver": solver}


class _Cut(Solving, Flow, Sigmas, Chained):
    """The common settings of DPM-Solver's two classes for chains."""

    lambda_min_clipped: float | None = None
    """Least λ = log(α/σ) of the levels; None for the −∞ of diffusers' default."""
    variance_type: Learned = None

    def variance(self) -> Variance:
        return "learned_range" if self.variance_type == "learned_range" else "fixed"

    def plan(self) -> str:
        if (by_sigma := self.by_sigma(STEPS, self.clean, spans=True)) is not None:
            return by_sigma
        table = self.schedule().table
        left = self.num_train_timesteps
        if self.lambda_min_clipped is not None:
            left = int((torch.as_tensor(table.half_logsnr)[1:] >= self.lambda_min_clipped).sum())
        if left == self.num_train_timesteps:
            return spaced(self, STEPS, whole=True, skip=True, clean=self.clean)
        return self._cut(left)

    def _cut(self, left: int) -> str:
        """The plan of a chain's cleanest steps, `left` in number: a list, as spacings cover the whole chain."""
        if not self.clean:
            raise Problem("lambda_min_clipped cuts the chain and final_sigmas_type is 'sigma_min': name levels with --steps")
        spacing = getattr(self, "timestep_spacing", "linspace")
        if spacing == "trailing":
            gap = self.num_train_timesteps / STEPS
            steps = [round(left - k * gap) - 1 for k in range(math.ceil(left / gap))]
        else:
            gap = left // (STEPS + 1) if spacing == "leading" else (left - 1) / STEPS
            steps = [
                round(k * gap) + (getattr(self, "steps_offset", 0) if spacing == "leading" else 0) for k in range(STEPS, 0, -1)
            ]
        return f"at:{','.join(str(step) for step in sorted(set(steps), reverse=True) if step >= 0)}"


class DPMSolverMultistepScheduler(_Cut, Thresholded, Spaced):
    """DPM-Solver++ or DPM-Solver as a multistep method."""

    euler_at_final: bool = False
    use_lu_lambdas: bool | None = False
    rescale_betas_zero_snr: bool = False

    def sampler(self) -> AnySampler:
        return multistep(self)


def multistep(scheduler: Any) -> AnySampler:
    """The sampler of DPM-Solver's two multistep classes. Raises Problem for an order reduction without an equivalent, and for
    the third order of the SDE, where diffusers is wrong.
    """
    if scheduler.algorithm_type == "sde-dpmsolver++" and scheduler.solver_order == 3:
        raise Problem(
            "algorithm_type is 'sde-dpmsolver++' and solver_order 3: diffusers has a wrong sign in it on chains, and no such "
            "step on EDM's levels; name a sampler with --sampler"
        )
    fields: dict[str, Any] = {**scheduler.solver(), "eta": 1.0 if scheduler.algorithm_type == "sde-dpmsolver++" else 0.0}
    if scheduler.solver_order == 3:
        fields["taper"] = 4
    if scheduler.euler_at_final and not scheduler.clean:
        if scheduler.solver_order == 3:
            raise Problem("euler_at_final is true with solver_order 3: the order here falls by one a step")
        fields["taper"] = 1
    return as_sampler("DPMSolverMultistepScheduler", kind="dpmpp", **fields)


class DPMSolverSinglestepScheduler(_Cut, Thresholded):
    """DPM-Solver++ or DPM-Solver as a single-step method."""

    solver_order: Annotated[Literal[1, 2, 3], Only((2, 3), "the first order is DDIM's")] = 2
    algorithm_type: Annotated[
        str, Only(("dpmsolver++", "dpmsolver", "deis"), "samplers here draw fresh noise with memory alone")
    ] = "dpmsolver++"
    lower_order_final: Annotated[bool, Idle("the step to clean data is of first order in any case")] = False

    def sampler(self) -> AnySampler:
        return as_sampler("DPMSolverSinglestepScheduler", kind="dpmpp_single", **self.solver())


class UniPCMultistepScheduler(Thresholded, Flow, Sigmas, Spaced, Chained):
    """UniPC."""

    solver_order: int = Field(default=2, ge=1, le=4)
    predict_x0: bool = True
    solver_type: Literal["bh1", "bh2", "midpoint", "heun", "logrho"] = "bh2"
    lower_order_final: bool = True
    disable_corrector: tuple[int, ...] = ()
    solver_p: Annotated[None, Only((None,), "another solver inside of UniPC is none of its settings here")] = None
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"
    rescale_betas_zero_snr: bool = False
    sigma_min: BOUND = None
    sigma_max: BOUND = None
    shift_terminal: Annotated[float | None, Only((None,), "it is flow matching's")] = None

    def sampler(self) -> AnySampler:
        skipped = sorted(self.disable_corrector)
        if skipped != list(range(len(skipped))):
            raise Problem(
                f"disable_corrector is {list(self.disable_corrector)}: only the first steps can be left uncorrected here"
            )
        if self.final_sigmas_type == "zero" and (self.solver_type == "bh1" or not self.predict_x0):
            what = "solver_type is 'bh1'" if self.predict_x0 else "predict_x0 is False"
            raise Problem(
                f"{what} and final_sigmas_type 'zero': diffusers' last step gives no number then; name a sampler with --sampler"
            )
        # Counted from the last step, included in diffusers' order reduction, to clean data or not.
        taper = 4 if not self.lower_order_final else 2 if self.final_sigmas_type == "zero" else 1
        return as_sampler(
            "UniPCMultistepScheduler",
            kind="unipc",
            order=self.solver_order,
            target="x0" if self.predict_x0 else "epsilon",
            solver="bh1" if self.solver_type == "bh1" else "bh2",
            uncorrected=len(skipped),
            taper=taper,
        )

    def plan(self) -> str:
        clean = self.final_sigmas_type == "zero"
        return self.by_sigma(STEPS, clean, spans=True) or spaced(self, STEPS, whole=True, skip=True, clean=clean)


class DEISMultistepScheduler(Thresholded, Flow, Sigmas, Spaced, Chained):
    """DEIS in log σ/α; the last step leads to the cleanest noisy level."""

    solver_order: Literal[1, 2, 3] = 2
    algorithm_type: Annotated[str, Idle("there is one, under several names")] = "deis"
    solver_type: Annotated[str, Idle("there is one, under several names")] = "logrho"
    lower_order_final: Annotated[bool, Idle(f"it is for plans of fewer than {_FEW} steps, where `taper` is")] = True

    def sampler(self) -> AnySampler:
        return LMS(order=self.solver_order, variable="log")

    def plan(self) -> str:
        return self.by_sigma(STEPS, clean=False, spans=True) or spaced(self, STEPS, whole=True, skip=True, clean=False)
