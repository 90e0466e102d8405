"""Euler's method with fresh noise after each step, k-diffusion's "Euler a"; equal to DDIM with η."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lodestar.samplers.ddim import DDIM


class EulerAncestral(DDIM):
    """`DDIM` at η = 1 under k-diffusion's name: Euler's step to below the next level, and noise up to the level."""

    kind: Literal["euler_ancestral"] = "euler_ancestral"  # type: ignore[assignment]
    eta: float = Field(default=1.0, ge=0, le=100)
    """η, the fraction of the posterior's noise drawn afresh."""
