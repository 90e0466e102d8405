"""Export of a model's process as settings of a diffusers scheduler: written, read back, and refused if different."""

from __future__ import annotations

from typing import Any

import torch

from lodestar.config import Problem, short
from lodestar.conversion.schedulers import SCHEDULERS, Process, read
from lodestar.conversion.schedulers.base import PREDICTIONS, Scheduler
from lodestar.core.plan import Karras, Leading, Linspace, LogSNR, Plan, Trailing, parse_plan
from lodestar.core.prediction import EDM, Consistency
from lodestar.core.schedule import EDMSigma
from lodestar.guidance import Clamp, Threshold
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import DDIM, LMS, PLMS, Ancestral, AnySampler, DPMpp, DPMppSingle, EulerAncestral, UniPC

_CLASSES = {
    "ancestral": "DDPMScheduler", "ddim": "DDIMScheduler", "plms": "PNDMScheduler", "euler": "EulerDiscreteScheduler",
    "euler_ancestral": "EulerAncestralDiscreteScheduler", "heun": "HeunDiscreteScheduler", "lms": "LMSDiscreteScheduler",
    "dpmpp": "DPMSolverMultistepScheduler", "dpmpp_single": "DPMSolverSinglestepScheduler", "unipc": "UniPCMultistepScheduler",
}  # fmt: skip
_EDM_CLASSES = {"euler": "EDMEulerScheduler", "dpmpp": "EDMDPMSolverMultistepScheduler"}
_SCHEDULES = {"linear": "linear", "scaled_linear": "scaled_linear", "cosine": "squaredcos_cap_v2",
              "squaredcos_cap_v2": "squaredcos_cap_v2", "sigmoid": "sigmoid", "exponential": "exp"}  # fmt: skip

PIPELINES = {
    "DDPMScheduler": "DDPMPipeline", "DDIMScheduler": "DDIMPipeline", "DPMSolverMultistepScheduler": "DDPMPipeline",
    "DPMSolverSinglestepScheduler": "DDPMPipeline", "CMStochasticIterativeScheduler": "ConsistencyModelPipeline",
}  # fmt: skip
"""Unconditional pipelines by scheduler class: DDPMPipeline neither scales its input nor supports a step without `generator`."""


def write(config: DiffusionConfig) -> tuple[str, dict[str, Any]]:
    """The scheduler class and its settings for a model's schedule, prediction, variance, sampler, plan and limit.

    The number of steps, a list of them, DDIM's η and the like are arguments there, not settings. Raises Problem naming
    unsupported values.
    """
    name = _class(config)
    kind = SCHEDULERS[name]
    settings = {**_process(config), **_sampler(config.sampler), **_plan(parse_plan(config.steps)), **_limit(config, kind)}
    if config.denoiser.variance == "learned":
        raise Problem("diffusers reads a learned variance as a fraction of its range, and this model gives its logarithm")
    if config.denoiser.variance == "learned_range":
        if "variance_type" not in kind.model_fields:
            raise Problem(f"diffusers' {name} takes no learned variance, and this model has one: {_advice(config)}")
        settings["variance_type"] = "learned_range"
    known = {field: value for field, value in settings.items() if field in kind.model_fields}
    _check(config, name, read(name, known, f"diffusers' {name}"))
    defaults = {field: info.get_default(call_default_factory=True) for field, info in kind.model_fields.items()}
    plain = {field: list(value) if isinstance(value, tuple) else value for field, value in {**defaults, **known}.items()}
    # The float −∞ of diffusers is left out: JSON has no word for it.
    plain.pop("lambda_min_clipped", None)
    return name, {"_class_name": name, **plain}


def _class(config: DiffusionConfig) -> str:
    kind, edm = config.sampler.kind, isinstance(config.schedule, EDMSigma)
    if edm and kind == "consistency":
        return "CMStochasticIterativeScheduler"
    classes = _EDM_CLASSES if edm else _CLASSES
    if isinstance(config.sampler, LMS) and config.sampler.variable == "log":
        return "DEISMultistepScheduler"
    if kind not in classes:
        raise Problem(f"diffusers has no scheduler that samples this model with {kind!r}: {_advice(config)}")
    return classes[kind]


def _advice(config: DiffusionConfig) -> str:
    classes = _EDM_CLASSES if isinstance(config.schedule, EDMSigma) else _CLASSES
    return f"give another one of {', '.join(classes)} with --sampler"


def _process(config: DiffusionConfig) -> dict[str, Any]:
    """Settings of the chain and of the prediction. Raises Problem if no class has them."""
    schedule, prediction = config.schedule, config.denoiser.prediction
    fields = schedule.model_dump()
    settings: dict[str, Any] = {"num_train_timesteps": schedule.timesteps, "rescale_betas_zero_snr": schedule.zero_terminal_snr}
    if isinstance(schedule, EDMSigma) and isinstance(prediction, EDM):
        return {
            **{name: fields[name] for name in ("sigma_min", "sigma_max", "rho")},
            "sigma_data": prediction.sigma_data,
            "num_train_timesteps": schedule.timesteps,
        }
    default = {"offset": 0.008, "beta_cap": 0.999, "rate": 12.0}
    if schedule.kind not in _SCHEDULES or any(fields.get(name, value) != value for name, value in default.items()):
        raise Problem(f"diffusers has no schedule {schedule.kind!r} with these settings: it has {', '.join(sorted(_SCHEDULES))}")
    named = {ours.kind: theirs for theirs, ours in PREDICTIONS.items()}
    if prediction.kind not in named:
        raise Problem(f"diffusers has no prediction {prediction.kind!r}: it has {', '.join(named)}")
    settings |= {"beta_schedule": _SCHEDULES[schedule.kind], "prediction_type": named[prediction.kind]}
    if "beta_start" in fields:
        scale = 1000 / schedule.timesteps if fields.get("scaled") else 1.0
        settings |= {"beta_start": scale * fields["beta_start"], "beta_end": scale * fields["beta_end"]}
    return settings


def _sampler(sampler: AnySampler) -> dict[str, Any]:
    """Settings of a sampler, as far as classes have them."""
    match sampler:
        case Ancestral():
            return {"variance_type": "fixed_large" if sampler.variance == "large" else "fixed_small"}
        case PLMS():
            return {"skip_prk_steps": sampler.warmup == "heun"}
        case LMS():
            return {"solver_order": sampler.order}
        case DPMpp() | DPMppSingle():
            algorithm = "dpmsolver" if sampler.target == "epsilon" else "sde-dpmsolver++" if sampler.eta else "dpmsolver++"
            return {"solver_order": sampler.order, "algorithm_type": algorithm, "solver_type": sampler.solver}
        case UniPC():
            return {
                "solver_order": sampler.order,
                "predict_x0": sampler.target == "x0",
                "solver_type": sampler.solver,
                "disable_corrector": list(range(sampler.uncorrected)),
                "lower_order_final": sampler.taper < 4,
            }
        case _:
            return {}


def _plan(plan: Plan) -> dict[str, Any]:
    """Settings of the spacing, as far as classes have them."""
    clean = getattr(plan, "clean", True)
    settings: dict[str, Any] = {"final_sigmas_type": "zero" if clean else "sigma_min", "set_alpha_to_one": clean}
    match plan:
        case Leading():
            return {**settings, "timestep_spacing": "leading", "steps_offset": plan.offset}
        case Trailing():
            return {**settings, "timestep_spacing": "trailing"}
        case Linspace():
            return {**settings, "timestep_spacing": "linspace"}
        case Karras():
            return {**settings, "use_karras_sigmas": True}
        case LogSNR():
            return {**settings, "use_exponential_sigmas": True}
        case _:
            return settings


def _limit(config: DiffusionConfig, kind: type[Scheduler]) -> dict[str, Any]:
    """Settings of the limit of x̂₀; clamping is thresholding at a maximum of 1 where a class has no other."""
    limit = config.limit
    clips = "clip_sample" in kind.model_fields
    if isinstance(limit, Threshold):
        return {"thresholding": True, "dynamic_thresholding_ratio": limit.ratio, "sample_max_value": limit.maximum or 1e9}
    if isinstance(limit, Clamp) and not clips and limit.limit == 1:
        return {"thresholding": True, "sample_max_value": 1.0, "clip_denoised": True}
    range_ = {"clip_sample_range": limit.limit} if limit is not None else {}
    return {"clip_sample": limit is not None, "clip_denoised": limit is not None, **range_}


def _check(config: DiffusionConfig, name: str, told: Process) -> None:
    """Raise Problem naming the first difference between the written settings and the model."""
    schedule, prediction = config.schedule, config.denoiser.prediction
    same_times = isinstance(schedule, EDMSigma) == isinstance(told.schedule, EDMSigma) and (
        not isinstance(schedule, EDMSigma) or torch.equal(schedule.times(), told.schedule.times())
    )
    if not same_times or not torch.allclose(schedule.betas(), told.schedule.betas(), rtol=1e-9, atol=0):
        raise Problem(f"diffusers' {name} has no schedule {schedule.kind!r} with these settings")
    if prediction != told.prediction and isinstance(prediction, EDM | Consistency):
        raise Problem(f"diffusers' {name} has no prediction {prediction.kind!r} with these settings")
    if _plain(config.sampler, config) != _plain(told.sampler, config):
        raise Problem(
            f"diffusers' {name} has no sampler {short(_plain(config.sampler, config))!r}, but {short(told.sampler)!r}: "
            f"{_advice(config)}"
        )
    ends = [getattr(parse_plan(plan), "clean", True) for plan in (config.steps, told.plan)]
    if ends[0] != ends[1]:
        where = "clean data" if ends[1] else "the cleanest noisy level"
        raise Problem(f"diffusers' {name} ends at {where}, and steps {config.steps!r} do not: give others with --steps")
    if config.limit != told.limit and not (isinstance(config.limit, Threshold) and config.limit.maximum is None):
        what = "is left as it is" if config.limit is None else f"is limited by {short(config.limit)!r}"
        raise Problem(f"diffusers' {name} cannot sample this model, whose x̂₀ {what}: {_advice(config)}")


def _plain(sampler: AnySampler, config: DiffusionConfig) -> AnySampler:
    """A canonical sampler, without diffusers' call arguments, in one of several equivalent forms."""
    match sampler:
        case Ancestral():
            learned = config.denoiser.variance != "fixed" and sampler.variance in (None, "learned")
            return Ancestral(variance=None if learned else sampler.variance or "small")
        case EulerAncestral():
            return sampler.replace(clipped=True)
        case DDIM():
            return DDIM(clipped=False)
        case DPMpp() if sampler.order < 3 and getattr(parse_plan(config.steps), "clean", True):
            return sampler.replace(taper=2, solver="midpoint" if sampler.order == 1 else sampler.solver)
        case LMS() if sampler.variable == "ratio":
            return sampler.replace(order=4)
        case _:
            return sampler
