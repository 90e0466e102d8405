"""Samplers, one algorithm a file. The union is the list of kinds: a new one is written and named here, and is then everywhere."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.samplers.ancestral import Ancestral
from lodestar.samplers.base import Sampler, State, last
from lodestar.samplers.consistency import Consistency
from lodestar.samplers.ddim import DDIM
from lodestar.samplers.dpm_adaptive import DPMAdaptive
from lodestar.samplers.dpmpp import DPMpp
from lodestar.samplers.dpmpp_sde import DPMppSDE
from lodestar.samplers.dpmpp_single import DPMppSingle
from lodestar.samplers.edm import EDMHeun
from lodestar.samplers.euler import Euler
from lodestar.samplers.euler_ancestral import EulerAncestral
from lodestar.samplers.heun import Heun
from lodestar.samplers.lms import LMS
from lodestar.samplers.plms import PLMS
from lodestar.samplers.predictor_corrector import PredictorCorrector
from lodestar.samplers.unipc import UniPC

AnySampler = Annotated[
    Ancestral
    | DDIM
    | PLMS
    | Euler
    | EulerAncestral
    | Heun
    | EDMHeun
    | DPMpp
    | DPMppSingle
    | DPMppSDE
    | DPMAdaptive
    | UniPC
    | LMS
    | PredictorCorrector
    | Consistency,
    Field(discriminator="kind"),
]

__all__ = [
    "DDIM", "LMS", "PLMS", "Ancestral", "AnySampler", "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle",
    "EDMHeun", "Euler", "EulerAncestral", "Heun", "PredictorCorrector", "Sampler", "State", "UniPC", "last",
]  # fmt: skip
