"""Euler's method with fresh noise after each step, k-diffusion's "Euler a". In any coordinates it is DDIM with η."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lodestar.samplers.ddim import DDIM


class EulerAncestral(DDIM):
    """`DDIM` at η = 1 under the name that k-diffusion gives it: Euler's step to below the next level, and noise up to it."""

    kind: Literal["euler_ancestral"] = "euler_ancestral"  # type: ignore[assignment]
    eta: float = Field(default=1.0, ge=0, le=100)
    """η, the part of the posterior's noise that is drawn afresh."""
