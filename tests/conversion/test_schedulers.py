"""diffusers' schedulers: read, their pictures are the recorded ones of diffusers; written and read again, they are the same."""

from __future__ import annotations

import importlib
import inspect
import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.conversion import schedulers
from lodestar.conversion.schedulers.write import write
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, spread
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import EDM, Consistency, Epsilon, Velocity
from lodestar.core.schedule import Cosine, EDMSigma, Exponential, Linear, ScaledLinear, Sigmoid
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import Clamp, Context, Threshold, compose
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.samplers import DDIM, LMS, PLMS, Ancestral, DPMpp, DPMppSingle, Euler, EulerAncestral, Heun, UniPC, last
from lodestar.samplers import Consistency as Jump

from . import diffusers_record as record

RECORDED = json.loads(record.RECORD.read_text())
CASES = [
    pytest.param(name, *case, RECORDED["schedulers"][name][number], id=f"{name}-{number}")
    for name, cases in record.CASES.items()
    for number, case in enumerate(cases)
]
IN_SIGMA = {"EulerDiscreteScheduler", "EulerAncestralDiscreteScheduler", "HeunDiscreteScheduler", "LMSDiscreteScheduler"} | {
    "KDPM2DiscreteScheduler", "EDMEulerScheduler", "EDMDPMSolverMultistepScheduler", "CMStochasticIterativeScheduler",
}  # fmt: skip
"""Classes that carry x/α."""


def with_count(plan: str, count: int) -> str:
    """A plan with another number of steps."""
    kind, _, rest = plan.partition(":")
    return plan if kind == "at" else ",".join([f"{kind}:{count}", *rest.split(",")[1:]])


def pictures(process: schedulers.Process, count: int) -> Tensor:
    """What a process makes of the record's start with its function in the place of a network, as x/α where it ends."""
    prediction, learned = process.prediction, process.variance == "learned_range"

    def plain(x: Tensor, level: Level) -> Estimate:
        seen = spread(prediction.input_scale(level), x) * x
        x0 = prediction.x0(record.said(seen, level.time), x, level)  # type: ignore[arg-type]
        return Estimate(x, level, x0, frac=record.fraction(seen) if learned else None)

    denoise = compose([] if process.limit is None else [process.limit], Context(plain))
    steps = parse_plan(with_count(process.plan, count)).steps(process.schedule)
    x = record.START * process.schedule.start_sigma
    made = last(process.sampler(denoise, x, steps, record.draws()))
    return made / steps[-1].s.alpha


@pytest.mark.parametrize(("name", "steps", "settings", "right"), CASES)
def test_pictures_are_those_of_diffusers(name: str, steps: int, settings: dict[str, Any], right: list[float]) -> None:
    process = schedulers.read(name, settings, "here")
    count = 2 * steps - 1 if name == "KDPM2DiscreteScheduler" else steps
    made = pictures(process, count).flatten()
    if name not in IN_SIGMA:
        made = made * parse_plan(process.plan).steps(process.schedule)[-1].s.alpha
    # Schedulers in σ/α begin with a little less noise; the last level of a chain of zero signal is 2⁻²⁴ there, not 0; PNDM
    # extrapolates in the step to clean data too.
    loose = (name in IN_SIGMA and not name.startswith("EDM")) or settings.keys() & {"rescale_betas_zero_snr", "set_alpha_to_one"}
    scale = max(abs(value) for value in right)
    assert (made - torch.tensor(right)).abs().max() <= (6e-3 if loose else 2e-4) * scale


@pytest.mark.parametrize("name", schedulers.SCHEDULERS)
def test_settings_and_defaults_are_those_of_diffusers(name: str) -> None:
    theirs = pytest.importorskip("diffusers", reason="diffusers is not installed")
    signature = inspect.signature(getattr(theirs, name).__init__).parameters
    defaults = {each: parameter.default for each, parameter in signature.items() if each != "self"}
    defaults = {each: tuple(value) if isinstance(value, list) else value for each, value in defaults.items()}
    if "lambda_min_clipped" in defaults:
        defaults["lambda_min_clipped"] = None
    assert {each: field.default for each, field in schedulers.SCHEDULERS[name].model_fields.items()} == defaults


def test_every_class_for_pictures_is_known() -> None:
    known = {*schedulers.SCHEDULERS, *schedulers.REFUSED, *schedulers.ALIASES}
    assert {"ScoreSdeVeScheduler", "FlowMatchEulerDiscreteScheduler", "KDPM2AncestralDiscreteScheduler"} <= known
    if importlib.util.find_spec("diffusers") is not None:
        assert all(hasattr(importlib.import_module("diffusers"), name) for name in schedulers.SCHEDULERS)


def abar(settings: dict[str, Any]) -> np.ndarray:
    table = schedulers.read("DDPMScheduler", settings, "here").schedule.table
    return (torch.as_tensor(table.alpha)[1:] ** 2).numpy()


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
@pytest.mark.parametrize("zero", [False, True])
def test_chains_are_their_formulas(kind: str, zero: bool) -> None:
    count, first, final = 400, 0.0002, 0.03
    if kind == "linear":
        betas = np.linspace(first, final, count)
    elif kind == "scaled_linear":
        betas = np.linspace(first**0.5, final**0.5, count) ** 2
    elif kind == "sigmoid":
        betas = (final - first) / (1 + np.exp(-np.linspace(-6, 6, count))) + first
    else:
        cosine = np.cos((np.arange(count + 1) / count + 0.008) / 1.008 * np.pi / 2) ** 2
        betas = np.minimum(1 - cosine[1:] / cosine[:-1], 0.999)
    right = np.cumprod(1 - betas)
    if zero:  # Lin et al. 2023, algorithm 1
        root = np.sqrt(right)
        right = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
    chain = {"num_train_timesteps": count, "beta_start": first, "beta_end": final, "beta_schedule": kind}
    settings = {**chain, "rescale_betas_zero_snr": zero, "prediction_type": "v_prediction"}
    np.testing.assert_allclose(abar(settings), right, rtol=1e-9, atol=1e-12)


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("DDPMScheduler", {"trained_betas": [0.1, 0.2]}, r"trained_betas is \[0.1, 0.2\]: only None is read, because only chains"),
    ("DDPMScheduler", {"beta_schedule": "laplace"}, "beta_schedule is 'laplace'"),
    ("DDPMScheduler", {"variance_type": "learned"}, "variance_type is 'learned': .* for the variance itself"),
    ("DDPMScheduler", {"variance_type": "fixed_large_log"}, "fixed_large_log.*negative logarithm"),
    ("DDPMScheduler", {"prediction_type": "flow_prediction"}, "prediction_type is 'flow_prediction'"),
    ("DDPMScheduler", {"clip_sample_rnage": 1}, r"unknown field 'here clip_sample_rnage'.*did you mean 'clip_sample_range'\?"),
    ("DDPMScheduler", {"num_train_timesteps": "1000"}, "num_train_timesteps is '1000': input should be a valid integer"),
    ("DDPMScheduler", {"num_train_timesteps": [3]}, "num_train_timesteps is "),
    ("DDPMScheduler", {"beta_end": 1.5}, "beta_end is 1.5"),
    ("DDPMScheduler", {"clip_sample": 1}, "clip_sample is 1"),
    ("DDIMScheduler", {"timestep_spacing": "karras"}, "timestep_spacing is 'karras': choose from linspace, leading, trailing"),
    ("PNDMScheduler", {"prediction_type": "v_prediction"}, "past v then.*name a sampler with --sampler"),
    ("EulerDiscreteScheduler", {"use_beta_sigmas": True}, "use_beta_sigmas is True: .*beta distribution"),
    ("EulerDiscreteScheduler", {"sigma_max": 10.0}, "sigma_max is 10.0"),
    ("EulerDiscreteScheduler", {"interpolation_type": "log_linear"}, "interpolation_type"),
    ("EulerDiscreteScheduler", {"timestep_type": "continuous"}, "timestep_type"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "timestep_spacing": "leading"}, "only the span of 'linspace'"),
    ("EulerDiscreteScheduler", {"use_karras_sigmas": True, "use_exponential_sigmas": True}, "are both true"),
    ("KDPM2DiscreteScheduler", {}, "half-way in log σ"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver"}, "algorithm_type is 'sde-dpmsolver'"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "dpmsolver"}, "'sigma_min' alone"),
    ("DPMSolverMultistepScheduler", {"use_flow_sigmas": True}, "use_flow_sigmas is True"),
    ("DPMSolverMultistepScheduler", {"euler_at_final": True, "solver_order": 3, **record.MINIMUM}, "euler_at_final is true"),
    ("DPMSolverMultistepScheduler", {"lambda_min_clipped": 2.0, **record.MINIMUM}, "cuts the chain"),
    ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "has a wrong sign.*--sampler"),
    ("EDMDPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++", "solver_order": 3}, "no such step on EDM's levels"),
    ("UniPCMultistepScheduler", {"solver_type": "bh1"}, "solver_type is 'bh1' and final_sigmas_type 'zero'.*gives no number"),
    ("UniPCMultistepScheduler", {"predict_x0": False}, "predict_x0 is False and final_sigmas_type 'zero'"),
    ("DPMSolverMultistepScheduler", {"solver_order": 4}, "solver_order is 4: choose from 1, 2 or 3"),
    ("DPMSolverSinglestepScheduler", {"solver_order": 1}, "solver_order is 1"),
    ("UniPCMultistepScheduler", {"disable_corrector": [3]}, r"disable_corrector is \[3\]"),
    ("UniPCMultistepScheduler", {"solver_p": {"a": 1}}, "solver_p"),
    ("EDMEulerScheduler", {"prediction_type": "v_prediction"}, "prediction_type is 'v_prediction'"),
    ("EDMEulerScheduler", {"sigma_schedule": "exponential"}, "sigma_schedule"),
    ("EDMEulerScheduler", {"sigma_min": 90.0}, "sigma_min is 90: it must be below sigma_max"),
    ("CMStochasticIterativeScheduler", {"s_noise": 0.9}, "s_noise is 0.9"),
    ("FlowMatchEulerDiscreteScheduler", {}, "is not read, because flow matching"),
    ("ScoreSdeVeScheduler", {}, "is not read, because its levels are a geometric series"),
    ("DDPMSheduler", {}, "DDPMSheduler is not read: choose from DDPMScheduler, .*did you mean 'DDPMScheduler'"),
]


@pytest.mark.parametrize(("name", "settings", "said"), REFUSALS)
def test_what_is_not_read_is_refused_by_name(name: str, settings: dict[str, Any], said: str) -> None:
    with pytest.raises(Problem, match=f"^here: .*{said}|^{said}|^here {said}") as raised:
        schedulers.read(name, settings, "here")
    assert "\n" not in str(raised.value)


def test_another_sampler_or_plan_takes_the_place_of_one_that_is_not_there() -> None:
    v = {"prediction_type": "v_prediction"}
    assert schedulers.read("PNDMScheduler", v, "here", PLMS()).sampler == PLMS()
    assert schedulers.read("KDPM2DiscreteScheduler", {}, "here", plan="logsnr:10").plan == "logsnr:10"


@pytest.mark.parametrize(
    ("name", "settings", "field", "value"),
    [
        (
            "DDPMScheduler",
            {"_diffusers_version": "0.0.4", "tensor_format": "pt", "timestep_values": None},
            "plan",
            "leading:1000",
        ),
        ("DDPMScheduler", {"skip_prk_steps": True, "set_alpha_to_one": False}, "plan", "leading:1000"),
        ("DDPMScheduler", {"predict_epsilon": False}, "prediction", schedulers.base.PREDICTIONS["sample"]),
        ("DDPMScheduler", {"predict_epsilon": True}, "prediction", Epsilon()),
        ("DDPMScheduler", {"predict_epsilon": False, "prediction_type": "v_prediction"}, "prediction", Velocity()),
        ("DDIMScheduler", {"num_train_timesteps": 20}, "plan", "leading:20"),
        ("DDIMParallelScheduler", {"clip_sample": False}, "limit", None),
        ("DPMSolverMultistepScheduler", {"lambda_min_clipped": -math.inf}, "plan", "linspace:20,whole=true,skip_zero=true"),
        ("DPMSolverMultistepScheduler", {"thresholding": True, "sample_max_value": 2.0}, "limit", Threshold(maximum=2.0)),
        ("DPMSolverMultistepScheduler", {"solver_type": "bh2", "algorithm_type": "deis"}, "sampler", DPMpp()),
    ],
)
def test_old_and_other_settings(name: str, settings: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(schedulers.read(name, settings, "here"), field) == value


def model(sampler: Any, plan: str, limit: Any = None, **changes: Any) -> DiffusionConfig:
    learned = changes.pop("variance", "fixed") == "learned_range"
    network = UNetConfig(width=8, norm_groups=4, head_channels=8, out_channels=6 if learned else 3)
    prediction = changes.pop("prediction", Epsilon())
    denoiser = DenoiserConfig(network=network, prediction=prediction, variance="learned_range" if learned else "fixed")
    return DiffusionConfig(denoiser=denoiser, **{"schedule": Linear(), **changes}, sampler=sampler, steps=plan, limit=limit)


CLIP, EDM_CHAIN = Clamp(folded=True), EDMSigma(log_gain=0.25)
WRITTEN = [
    model(Ancestral(variance="small"), "leading:1000", CLIP),
    model(Ancestral(variance="large"), "linspace:1000,whole=true", Clamp(limit=0.5, folded=True), schedule=ScaledLinear()),
    model(Ancestral(), "trailing:1000", Threshold(maximum=2.0), variance="learned_range", schedule=Sigmoid()),
    model(DDIM(clipped=False), "leading:50,offset=1,clean=false", CLIP, schedule=Linear(timesteps=400)),
    model(PLMS(), "leading:50"),
    model(PLMS(warmup="runge_kutta"), "trailing:50,clean=false"),
    model(Euler(), "trailing:20", prediction=Velocity(), schedule=Linear(zero_terminal_snr=True)),
    model(Euler(), "karras:20,clean=false"),
    model(EulerAncestral(), "linspace:20"),
    model(Heun(), "logsnr:20", schedule=Exponential()),
    model(LMS(), "linspace:20"),
    model(LMS(variable="log", order=3), "trailing:20,clean=false"),
    model(DPMpp(), "trailing:20", CLIP, schedule=Cosine()),
    model(DPMpp(order=3, taper=4), "trailing:20", variance="learned_range"),
    model(DPMpp(eta=1.0, solver="heun"), "linspace:20,whole=true,skip_zero=true"),
    model(DPMpp(target="epsilon"), "karras:20,clean=false,whole=true"),
    model(DPMppSingle(order=3), "linspace:20,whole=true,skip_zero=true", CLIP),
    model(UniPC(order=3, solver="bh1", uncorrected=2, target="epsilon", taper=1), "trailing:20,clean=false"),
    model(Euler(), "karras:20", schedule=EDM_CHAIN, prediction=EDM(sigma_data=1.0)),
    model(DPMpp(eta=1.0), "karras:20,clean=false", CLIP, schedule=EDM_CHAIN, prediction=EDM()),
    model(Jump(), "trailing:1", CLIP, schedule=EDMSigma(timesteps=40), prediction=Consistency()),
]


@pytest.mark.parametrize("config", WRITTEN, ids=lambda config: f"{config.sampler.kind}-{config.steps}")
def test_what_is_written_is_read_as_the_same(config: DiffusionConfig) -> None:
    name, settings = write(config)
    process = schedulers.read(name, json.loads(json.dumps(settings)), "here")
    torch.testing.assert_close(process.schedule.betas(), config.schedule.betas(), rtol=1e-9, atol=0)
    assert torch.equal(process.schedule.times(), config.schedule.times())
    assert (process.sampler, process.limit) == (config.sampler, config.limit)
    assert (process.prediction, process.variance or "fixed") == (config.denoiser.prediction, config.denoiser.variance)
    ours, theirs = (parse_plan(plan).steps(config.schedule) for plan in (config.steps, process.plan))
    assert [(step.t.time, step.s.sigma) for step in ours] == [(step.t.time, step.s.sigma) for step in theirs]


@pytest.mark.parametrize(
    ("config", "said"),
    [
        (model(DPMpp(eta=0.5), "trailing:20"), "has no sampler 'dpmpp:eta=0.5,.*give another one of ancestral, ddim"),
        (model(UniPC(), "trailing:20", variance="learned_range"), "UniPCMultistepScheduler takes no learned variance"),
        (model(UniPC(solver="bh1"), "trailing:20"), "solver_type is 'bh1' and final_sigmas_type 'zero'"),
        (model(DPMpp(eta=1.0, order=3, taper=4), "trailing:20"), "solver_order 3: diffusers has a wrong sign in it"),
        (model(Euler(), "trailing:20", CLIP), "cannot sample this model, whose x̂₀ is limited by"),
        (
            model(Ancestral(variance="small"), "leading:1000", variance="learned_range"),
            "has no sampler 'ancestral:variance=small'",
        ),
        (model(Heun(reach=0.5), "trailing:20"), "has no sampler 'heun:reach=0.5"),
        (model(Ancestral(), "leading:10,clean=false"), "ends at clean data"),
        (model(Heun(), "karras:20", schedule=EDM_CHAIN, prediction=EDM()), "no scheduler that samples this model with 'heun'"),
        (model(Euler(), "karras:20", schedule=EDMSigma(), prediction=EDM()), "EDMEulerScheduler has no schedule 'edm'"),
        (model(Heun(), "trailing:20", schedule=Linear(zero_terminal_snr=True), prediction=Velocity()), "no schedule 'linear'"),
    ],
)
def test_what_diffusers_has_not_is_not_written(config: DiffusionConfig, said: str) -> None:
    with pytest.raises(Problem, match=said):
        write(config)
