"""diffusers' schedulers of EDM's process (Karras et al. 2022), and of consistency models, which share it (Song et al. 2023)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lodestar.conversion.schedulers.base import Limit, Scheduler, Thresholded
from lodestar.conversion.schedulers.sigmas import STEPS
from lodestar.conversion.schedulers.solvers import Solving, multistep
from lodestar.conversion.settings import Only
from lodestar.core import prediction
from lodestar.core.prediction import EDM, AnyPrediction
from lodestar.core.schedule import AnySchedule, EDMSigma
from lodestar.guidance import Clamp
from lodestar.samplers import AnySampler, Consistency, Euler


class _Karras(Scheduler):
    """Levels of EDM."""

    num_train_timesteps: int = Field(default=1000, ge=2, le=1_000_000)
    sigma_min: float = Field(default=0.002, gt=0)
    sigma_max: float = Field(default=80.0, gt=0)
    sigma_data: float = Field(default=0.5, gt=0)
    rho: float = Field(default=7.0, gt=0)

    def levels(self, gain: float) -> AnySchedule:
        """The chain of these levels, with network time gain·ln σ."""
        return EDMSigma(
            timesteps=self.num_train_timesteps, sigma_min=self.sigma_min, sigma_max=self.sigma_max, rho=self.rho, log_gain=gain
        )


class _Preconditioned(_Karras):
    """Classes with preconditioning in the scheduler."""

    prediction_type: Annotated[str, Only(("epsilon",), "of 'v_prediction' diffusers turns the network's sign round")] = "epsilon"
    sigma_schedule: Annotated[str, Only(("karras",), "chains of EDM's levels here follow equation 5 of its paper")] = "karras"
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def schedule(self) -> AnySchedule:
        return self.levels(0.25)

    def prediction(self) -> AnyPrediction:
        return EDM(sigma_data=self.sigma_data)

    def plan(self) -> str:
        rho = "" if self.rho == 7 else f",rho={self.rho:g}"
        return f"karras:{STEPS}{rho}" + ("" if self.final_sigmas_type == "zero" else ",clean=false")


class EDMEulerScheduler(_Preconditioned):
    """Euler's method on EDM's process; churn is an argument there, not a setting."""

    def sampler(self) -> AnySampler:
        return Euler()


class EDMDPMSolverMultistepScheduler(_Preconditioned, Solving, Thresholded):
    """DPM-Solver++ as a multistep method on EDM's process."""

    algorithm_type: Annotated[str, Only(("dpmsolver++", "sde-dpmsolver++", "deis"), "the class itself has no others")] = (
        "dpmsolver++"
    )
    euler_at_final: bool = False

    def sampler(self) -> AnySampler:
        return multistep(self)


class CMStochasticIterativeScheduler(_Karras):
    """Multistep consistency sampling, by default in one step."""

    num_train_timesteps: int = Field(default=40, ge=2, le=1_000_000)
    s_noise: Annotated[float, Only((1.0,), "the noise put back is the process's own")] = 1.0
    clip_denoised: bool = True

    def schedule(self) -> AnySchedule:
        return self.levels(250.0)

    def prediction(self) -> AnyPrediction:
        return prediction.Consistency(sigma_data=self.sigma_data, sigma_min=self.sigma_min)

    def sampler(self) -> AnySampler:
        return Consistency()

    def plan(self) -> str:
        return "trailing:1"

    def limit(self) -> Limit:
        return Clamp(folded=True) if self.clip_denoised else None
