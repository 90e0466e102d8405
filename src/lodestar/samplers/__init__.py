"""Samplers, one algorithm a file. The union is the list of kinds: a new one is written and named here, and is then everywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.samplers.ancestral import Ancestral
from lodestar.samplers.base import Sampler, State, last
from lodestar.samplers.ddim import DDIM
from lodestar.samplers.dpmpp import DPMpp
from lodestar.samplers.euler import Euler
from lodestar.samplers.heun import Heun

AnySampler = Annotated[Ancestral | DDIM | Euler | Heun | DPMpp, Field(discriminator="kind")]

__all__ = ["DDIM", "Ancestral", "AnySampler", "DPMpp", "Euler", "Heun", "Sampler", "State", "last"]
