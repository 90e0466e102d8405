"""diffusers' DDPM, DDIM and PNDM: steps of the chain itself."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from lodestar.config import Problem
from lodestar.conversion.schedulers.base import FORMULAS, UNCLEAR, Chained, Clipped, Spaced, Thresholded, spaced
from lodestar.conversion.settings import Only
from lodestar.denoiser import Variance
from lodestar.samplers import DDIM, PLMS, Ancestral, AnySampler

_VARIANCES: dict[str, Any] = {"fixed_small": "small", "fixed_small_log": "small", "fixed_large": "large", "learned_range": None}
_STEPS = 50
"""Default number of steps of diffusers' DDIMPipeline and PNDMPipeline."""


class DDPMScheduler(Thresholded, Clipped, Spaced, Chained):
    """Ancestral sampling, by default of the whole chain (as in DDPMPipeline)."""

    beta_schedule: Annotated[str, Only(("linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"), FORMULAS)] = "linear"
    variance_type: Annotated[
        str,
        Only(
            tuple(_VARIANCES),
            f"of 'learned', {UNCLEAR}, and of 'fixed_large_log' diffusers takes the root of a negative logarithm",
        ),
    ] = "fixed_small"
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    rescale_betas_zero_snr: bool = False

    def sampler(self) -> AnySampler:
        return Ancestral(variance=_VARIANCES[self.variance_type])

    def variance(self) -> Variance:
        return "learned_range" if self.variance_type == "learned_range" else "fixed"

    def plan(self) -> str:
        # For the whole chain all spacings agree; an offset would exceed it.
        return spaced(self.replace(steps_offset=0), self.num_train_timesteps, whole=True)


class DDIMScheduler(Thresholded, Clipped, Spaced, Chained):
    """DDIM at η = 0; η and `use_clipped_model_output` are arguments there, not settings."""

    set_alpha_to_one: bool = True
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"
    rescale_betas_zero_snr: bool = False

    def sampler(self) -> AnySampler:
        return DDIM(clipped=False)

    def plan(self) -> str:
        return spaced(self, min(_STEPS, self.num_train_timesteps), whole=True, clean=self.set_alpha_to_one)


class PNDMScheduler(Spaced, Chained):
    """PNDM, or PLMS where the Runge–Kutta steps are skipped."""

    prediction_type: Annotated[str, Only(("epsilon", "v_prediction"), "the class itself refuses others")] = "epsilon"
    skip_prk_steps: bool = False
    set_alpha_to_one: bool = False
    timestep_spacing: Literal["linspace", "leading", "trailing"] = "leading"

    def sampler(self) -> AnySampler:
        if self.prediction_type != "epsilon":
            raise Problem(
                f"prediction_type is {self.prediction_type!r}: diffusers extrapolates past v then, and plms here past ε̂; name a "
                "sampler with --sampler"
            )
        return PLMS(warmup="heun" if self.skip_prk_steps else "runge_kutta")

    def plan(self) -> str:
        return spaced(self, min(_STEPS, self.num_train_timesteps), whole=True, clean=self.set_alpha_to_one)
