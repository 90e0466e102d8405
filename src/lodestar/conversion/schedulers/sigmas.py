"""diffusers' schedulers in σ/α after k-diffusion: Euler, Euler ancestral, Heun, LMS and DPM-Solver-2."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lodestar.config import Problem
from lodestar.conversion.schedulers.base import FORMULAS, Chained, Clipped, Sigmas, Spaced, spaced
from lodestar.conversion.settings import Only
from lodestar.samplers import LMS, AnySampler, DPMppSingle, Euler, EulerAncestral, Heun

STEPS = 20
"""Steps of a plan where diffusers has no default."""

BOUND = Annotated[float | None, Only((None,), "plans span the chain's own range")]


class EulerDiscreteScheduler(Sigmas, Spaced, Chained):
    """Euler's method in σ/α."""

    interpolation_type: Annotated[
        str, Only(("linear",), "diffusers moves the levels of 'log_linear' away from the times that the network is told")
    ] = "linear"
    sigma_min: BOUND = None
    sigma_max: BOUND = None
    timestep_type: Annotated[str, Only(("discrete",), "chains here count their times")] = "discrete"
    rescale_betas_zero_snr: bool = False
    final_sigmas_type: Literal["zero", "sigma_min"] = "zero"

    def sampler(self) -> AnySampler:
        return Euler()

    def plan(self) -> str:
        clean = self.final_sigmas_type == "zero"
        return self.by_sigma(STEPS, clean) or spaced(self, STEPS, whole=False, clean=clean)


class EulerAncestralDiscreteScheduler(Spaced, Chained):
    """Euler's method with fresh noise."""

    rescale_betas_zero_snr: bool = False

    def sampler(self) -> AnySampler:
        return EulerAncestral()

    def plan(self) -> str:
        return spaced(self, STEPS, whole=False)


class _Latent(Chained):
    """Classes with latent diffusion's default chain, but linear."""

    beta_start: float = Field(default=0.00085, gt=0, lt=1)
    beta_end: float = Field(default=0.012, gt=0, lt=1)


class HeunDiscreteScheduler(Clipped, Sigmas, Spaced, _Latent):
    """Heun's method in σ/α."""

    beta_schedule: Annotated[str, Only(("linear", "scaled_linear", "squaredcos_cap_v2", "exp"), FORMULAS)] = "linear"
    clip_sample: bool = False

    def sampler(self) -> AnySampler:
        return Heun()

    def plan(self) -> str:
        return self.by_sigma(STEPS) or spaced(self, STEPS, whole=False)


class LMSDiscreteScheduler(Sigmas, Spaced, Chained):
    """Linear multistep method, of order 4: its order is an argument there."""

    def sampler(self) -> AnySampler:
        return LMS()

    def plan(self) -> str:
        return self.by_sigma(STEPS) or spaced(self, STEPS, whole=False)


class KDPM2DiscreteScheduler(Sigmas, Spaced, _Latent):
    """DPM-Solver-2, with stages half-way in log σ: each step equals two of a plan even in log σ, and of no other."""

    def sampler(self) -> AnySampler:
        return DPMppSingle(target="epsilon")

    def plan(self) -> str:
        if not self.use_exponential_sigmas:
            raise Problem(
                "use_exponential_sigmas is not true: only such levels are read, because stages half-way in log σ between "
                "others are no plan here; name levels with --steps"
            )
        return self.by_sigma(2 * STEPS - 1) or ""
