"""Samplers, one algorithm a file. `KINDS` lists the kinds; a new sampler is added there."""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
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
from lodestar.samplers.own import Own
from lodestar.samplers.plms import PLMS
from lodestar.samplers.predictor_corrector import PredictorCorrector
from lodestar.samplers.unipc import UniPC

KINDS = Kinds(
    Ancestral, DDIM, PLMS, Euler, EulerAncestral, Heun, EDMHeun, DPMpp, DPMppSingle, DPMppSDE, DPMAdaptive, UniPC, LMS,
    PredictorCorrector, Consistency, Own,
)  # fmt: skip
AnySampler = Annotated[Sampler, KINDS]

__all__ = [
    "DDIM", "KINDS", "LMS", "PLMS", "Ancestral", "AnySampler", "Consistency", "DPMAdaptive", "DPMpp", "DPMppSDE", "DPMppSingle",
    "EDMHeun", "Euler", "EulerAncestral", "Heun", "Own", "PredictorCorrector", "Sampler", "State", "UniPC", "last",
]  # fmt: skip
