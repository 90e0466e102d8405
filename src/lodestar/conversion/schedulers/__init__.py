"""diffusers' schedulers, import and export: supported classes, and reasons for the others' refusal."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lodestar.config import Problem, nearest
from lodestar.conversion.schedulers.base import Limit, Scheduler
from lodestar.conversion.schedulers.chains import DDIMScheduler, DDPMScheduler, PNDMScheduler
from lodestar.conversion.schedulers.edm import (
    CMStochasticIterativeScheduler,
    EDMDPMSolverMultistepScheduler,
    EDMEulerScheduler,
)
from lodestar.conversion.schedulers.sigmas import (
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LMSDiscreteScheduler,
)
from lodestar.conversion.schedulers.solvers import (
    DEISMultistepScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSinglestepScheduler,
    UniPCMultistepScheduler,
)
from lodestar.conversion.settings import read as read_settings
from lodestar.core.prediction import AnyPrediction
from lodestar.core.schedule import AnySchedule
from lodestar.denoiser import Variance
from lodestar.samplers import AnySampler

SCHEDULERS: dict[str, type[Scheduler]] = {
    kind.__name__: kind
    for kind in (
        DDPMScheduler, DDIMScheduler, PNDMScheduler, EulerDiscreteScheduler, EulerAncestralDiscreteScheduler,
        HeunDiscreteScheduler, LMSDiscreteScheduler, KDPM2DiscreteScheduler, DPMSolverMultistepScheduler,
        DPMSolverSinglestepScheduler, UniPCMultistepScheduler, DEISMultistepScheduler, EDMEulerScheduler,
        EDMDPMSolverMultistepScheduler, CMStochasticIterativeScheduler,
    )
}  # fmt: skip
"""Supported classes, by name."""

ALIASES = {"DDPMParallelScheduler": "DDPMScheduler", "DDIMParallelScheduler": "DDIMScheduler"}
"""Equivalents of other classes, with the same settings."""

_FLOW = "flow matching's straight process is none of the chains here"
_OTHER = "it is no process of pictures' values with a network for noise"
_DISTILLED = "it is for distilled latent models, whose outputs it scales in its own way"
_BACKWARD = "it runs backwards, from pictures to noise: convert the folder with the scheduler that samples"
REFUSED: dict[str, str] = {
    "KDPM2AncestralDiscreteScheduler": "stages half-way to the level below which noise is added are no plan here",
    "IPNDMScheduler": "its chain has no α and σ of a formula that is known here",
    "ScoreSdeVeScheduler": "its levels are a geometric series of σ without α, which is none of the chains here",
    "ScoreSdeVpScheduler": "its time is continuous, and the score is scaled in its own way",
    "KarrasVeScheduler": "its levels are a geometric series of σ without α, which is none of the chains here",
    "DPMSolverSDEScheduler": "it draws Brownian noise at stages half-way in log σ, which are no plan here",
    "CosineDPMSolverMultistepScheduler": "it is for sound, on a process of its own",
    "SASolverScheduler": "its stochastic Adams method is no sampler here",
    "UnCLIPScheduler": "its learned variances are for embeddings and pictures of unCLIP, in a range of its own",
    "RePaintScheduler": "it fills in pictures: convert the folder with DDPMScheduler, and use lodestar edit inpaint",
    "LCMScheduler": _DISTILLED, "TCDScheduler": _DISTILLED, "SCMScheduler": _DISTILLED,
    "DDIMInverseScheduler": _BACKWARD, "DPMSolverMultistepInverseScheduler": _BACKWARD,
    "FlowMatchEulerDiscreteScheduler": _FLOW, "FlowMatchHeunDiscreteScheduler": _FLOW, "FlowMatchLCMScheduler": _FLOW,
    "VQDiffusionScheduler": _OTHER, "AmusedScheduler": _OTHER, "DDPMWuerstchenScheduler": _OTHER,
}  # fmt: skip
"""Known unsupported classes, with the reason."""

_GONE = ("tensor_format", "timestep_values", "predict_epsilon")
"""Former settings of diffusers: the array library, its list of steps, and today's `prediction_type`."""


@dataclass(frozen=True)
class Process:
    """The process and sampling described by a scheduler."""

    schedule: AnySchedule
    prediction: AnyPrediction
    variance: Variance | None
    """Reverse variance; None if the class has no setting for it."""
    sampler: AnySampler
    plan: str
    limit: Limit


def read(
    name: str, settings: Mapping[str, Any], where: str, sampler: AnySampler | None = None, plan: str | None = None
) -> Process:
    """Read a scheduler of this class with these JSON settings. Raises Problem naming unsupported settings, with the reason.

    sampler, plan: in place of the class's own. Settings of other classes have no effect, as in diffusers.
    """
    name = ALIASES.get(name, name)
    if name not in SCHEDULERS:
        why = REFUSED.get(name)
        choices = f"{', '.join(SCHEDULERS)}{nearest(name, SCHEDULERS)}"
        raise Problem(f"{where}: {name} is not read" + (f", because {why}" if why else f": choose from {choices}"))
    kind = SCHEDULERS[name]
    try:
        scheduler = read_settings(kind, _own(kind, settings), where)
        return Process(
            scheduler.schedule(),
            scheduler.prediction(),
            scheduler.variance(),
            sampler or scheduler.sampler(),
            plan or scheduler.plan(),
            scheduler.limit(),
        )
    except Problem as problem:
        told = str(problem)
        raise Problem(told if told.startswith(where) else f"{where}: {told}") from None


def _own(kind: type[Scheduler], settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings without other classes', and old ones under their new names."""
    others = {field for other in SCHEDULERS.values() for field in other.model_fields} - set(kind.model_fields)
    # diffusers writes the float −∞, which JSON has no word for.
    own = {
        field: None if field == "lambda_min_clipped" and value == -math.inf else value
        for field, value in settings.items()
        if field not in others and field not in _GONE
    }
    # A setting of 2022 dropped by diffusers, which now takes such models for predicting ε.
    if settings.get("predict_epsilon") is False:
        own.setdefault("prediction_type", "sample")
    return own


__all__ = ["ALIASES", "REFUSED", "SCHEDULERS", "Process", "Scheduler", "read"]
