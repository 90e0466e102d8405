"""Adapters for schedules, lists of noise levels, spacings and respacing."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode
from lodestar.core import sigmas
from lodestar.core.estimate import Estimate
from lodestar.core.level import CLEAN, Level, log
from lodestar.core.plan import AnyPlan, Indexed, Linspace, parse_plan
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import AnySchedule, Linear, Schedule
from lodestar.core.transition import Transition, chain, transitions
from lodestar.samplers import Heun

from .harness import Case, Check, Left, adapter


def schedule_of(settings: dict[str, Any]) -> Schedule:
    """The chain of a subcase in guided-diffusion's names, respaced where it says so."""
    schedule: Schedule = decode(
        AnySchedule,
        {
            "kind": settings["noise_schedule"],
            "timesteps": settings["diffusion_steps"],
            "rescale_time": settings.get("rescale_timesteps", False),
        },
    )
    respacing = settings.get("timestep_respacing") or "none"
    return schedule if respacing == "none" else plan_of(respacing).respace(schedule)


def plan_of(text: str | Sequence[int]) -> Indexed:
    """A plan from guided-diffusion's section counts."""
    plan = parse_plan(text if isinstance(text, str) else ",".join(map(str, text)))
    assert isinstance(plan, Indexed)
    return plan


def _tensor(values: Sequence[float | Tensor]) -> Tensor:
    return torch.tensor([float(value) for value in values], dtype=torch.float64)


def _full(schedule: Schedule) -> Transition:
    """All steps of a chain at once, the cleanest first."""
    return chain(schedule.table, torch.arange(1, schedule.timesteps + 1))


def _arrays(step: Transition) -> dict[str, Tensor]:
    """guided-diffusion's arrays of a chain whose steps are given, the cleanest first."""
    alpha_bar, before = step.t.alpha**2, step.s.alpha**2
    of_x0, of_x = step.coefficients()
    values = {
        "betas": step.beta,
        "alphas_cumprod": alpha_bar,
        "alphas_cumprod_prev": before,
        "alphas_cumprod_next": torch.cat([alpha_bar[1:], torch.zeros(1)]) if isinstance(alpha_bar, Tensor) else 0.0,
        "sqrt_alphas_cumprod": step.t.alpha,
        "sqrt_one_minus_alphas_cumprod": step.t.sigma,
        "log_one_minus_alphas_cumprod": 2 * log(step.t.sigma),
        "sqrt_recip_alphas_cumprod": 1 / step.t.alpha,
        "sqrt_recipm1_alphas_cumprod": step.t.ratio,
        "posterior_variance": step.small,
        "posterior_log_variance_clipped": step.logvar("small"),
        "posterior_mean_coef1": of_x0,
        "posterior_mean_coef2": of_x,
        "fixed_large_variance": step.var("large"),
        "log_betas": log(step.beta),
    }
    return {name: torch.as_tensor(value, dtype=torch.float64) for name, value in values.items()}


def _check(name: str, ours: Tensor) -> Check:
    # At the first step this coefficient is 1; the reference's β/(1 − ᾱ) cancels, at T = 4000 to 1 + 2e-12.
    inexact = "posterior_mean_coef1" in name
    return Check(name, ours, rtol=1e-10 if inexact else None)


@adapter("schedules_guided_diffusion", "schedules_glide_karlo")
def published(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        schedule = _deprecated(settings) if "beta_schedule" in settings else _named(settings)
        arrays = _arrays(_full(schedule))
        for name in case.under(f"{subcase}/"):
            yield _check(name, arrays[name.removeprefix(f"{subcase}/")])


def _named(settings: dict[str, Any]) -> Schedule:
    return decode(AnySchedule, {"kind": settings["schedule_name"], "timesteps": settings["num_diffusion_timesteps"]})


def _deprecated(settings: dict[str, Any]) -> Schedule:
    """The first DDPM code's names, which GLIDE keeps."""
    ends = {"beta_start": settings["beta_start"], "beta_end": settings["beta_end"]}
    name = settings["beta_schedule"]
    kinds: dict[str, dict[str, Any]] = {
        "quad": {"kind": "scaled_linear", **ends},
        "linear": {"kind": "linear", "scaled": False, **ends},
        "const": {"kind": "constant", "beta": settings["beta_end"]},
        "jsd": {"kind": "jsd"},
    }
    if warmup := re.fullmatch(r"warmup(\d+)", name):
        kinds[name] = {"kind": "warmup", "fraction": int(warmup[1]) / 100, **ends}
    return decode(AnySchedule, {**kinds[name], "timesteps": settings["num_diffusion_timesteps"]})


@adapter("schedules_pytorch_ddpm")
def pytorch_ddpm(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        schedule = pytorch_ddpm_schedule(settings)
        arrays = _arrays(_full(schedule))
        ours = {
            "betas": schedule.betas(),
            "betas_f64_linspace": schedule.replace(single=False).betas(),
            "sqrt_alphas_bar": arrays["sqrt_alphas_cumprod"],
            "sqrt_one_minus_alphas_bar": arrays["sqrt_one_minus_alphas_cumprod"],
            "sqrt_recip_alphas_bar": arrays["sqrt_recip_alphas_cumprod"],
            "sqrt_recipm1_alphas_bar": arrays["sqrt_recipm1_alphas_cumprod"],
            "posterior_var": arrays["posterior_variance"],
            "posterior_log_var_clipped": arrays["posterior_log_variance_clipped"],
            "posterior_mean_coef1": arrays["posterior_mean_coef1"],
            "posterior_mean_coef2": arrays["posterior_mean_coef2"],
        }
        for name in case.under(f"{subcase}/"):
            yield _check(name, ours[name.rpartition("/")[2]])


def pytorch_ddpm_schedule(settings: dict[str, Any]) -> Linear:
    """The chain of a subcase in pytorch-ddpm's names."""
    ends = {"beta_start": settings["beta_1"], "beta_end": settings["beta_T"]}
    return Linear(timesteps=settings["T"], scaled=False, single=True, **ends)


@adapter("respacing")
def respacing(case: Case) -> Iterator[Check | Left]:
    for error in case.config.get("error_cases", []):
        with pytest.raises(Problem):
            plan_of(error["section_counts"]).levels(Linear(timesteps=error["num_timesteps"]))
    for subcase, settings in case.subcases.items():
        base: Schedule = decode(AnySchedule, {"kind": settings["schedule"], "timesteps": settings["num_timesteps"]})
        plan = plan_of(settings["section_counts"])
        # As samplers take them, one by one; and as a chain of its own, all at once.
        steps = plan.steps(base)[::-1]
        singly = [_arrays(step) for step in steps]
        at_once = _arrays(_full(plan.respace(base)))
        for name in case.under(f"{subcase}/"):
            what = name.removeprefix(f"{subcase}/")
            match what:
                case "timesteps" | "model_t_rescale0":
                    yield Check(name, torch.tensor([round(step.t.time) for step in steps]))
                case "model_t_rescale1":
                    rescaled = plan.steps(base.replace(rescale_time=True))[::-1]
                    yield Check(name, _tensor([step.t.time for step in rescaled]), rtol=1e-6)
                case "alphas_cumprod_next":
                    yield Check(name, at_once[what])
                case _:
                    ours = torch.stack([arrays[what] for arrays in singly])
                    torch.testing.assert_close(at_once[what], ours, rtol=1e-9, atol=1e-12)
                    yield _check(name, ours)
    for name in case.under("unspaced_"):
        steps_in_all = int(re.findall(r"\d+", name)[0])
        times = Linear(timesteps=steps_in_all, rescale_time=True).times()
        yield Check(name, times[case.inputs[name.replace("/model_t", "/t")]], rtol=1e-6)


@adapter("schedules_diffusers")
def diffusers(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        schedule = _diffusers_schedule(settings)
        ours = {
            "betas": schedule.betas(),
            "alphas_cumprod": _arrays(_full(schedule))["alphas_cumprod"],
            "betas_zero_snr": schedule.replace(zero_terminal_snr=True).betas(),
        }
        for name in case.under(f"{subcase}/"):
            yield Check(name, ours[name.rpartition("/")[2]])
    # The spacings are recorded for the default schedule of diffusers, with the T of the subcases.
    schedule = Linear(scaled=False, timesteps=next(iter(case.subcases.values()))["num_train_timesteps"])
    for name in case.under("timesteps/") + case.under("sigmas/"):
        wanted, _, key = name.partition("/")
        family, *spacing, count = key.split("_")
        levels = _diffusers_plan(family, "_".join(spacing), int(count)).levels(schedule)
        if wanted == "sigmas":
            yield Check(name, _tensor([level.ratio for level in levels]))
        else:
            times = _tensor([level.time for level in levels[:-1]])
            yield Check(name, times if family == "euler" else times.round())


def _diffusers_schedule(settings: dict[str, Any]) -> Schedule:
    kind = settings["beta_schedule"]
    fields: dict[str, Any] = {"kind": kind, "timesteps": settings["num_train_timesteps"]}
    if kind != "squaredcos_cap_v2":
        fields |= {"beta_start": settings["beta_start"], "beta_end": settings["beta_end"]}
    return decode(AnySchedule, fields | ({"scaled": False} if kind == "linear" else {}))


def _diffusers_plan(family: str, spacing: str, count: int) -> Any:
    match spacing:
        case "karras" | "trailing":
            return parse_plan(f"{spacing}:{count}")
        case "lu":
            return parse_plan(f"logsnr:{count}")
        case "leading":
            return decode(AnyPlan, {"kind": "leading", "count": count, "skip_zero": family == "dpm"})
    # Euler's times are fractional; UnCLIP's spacing has no other name.
    return Linspace(count=count, whole=family != "euler", skip_zero=family == "dpm")


@adapter("schedules_k_diffusion")
def k_diffusion(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        if "betas" in settings:
            yield from _discrete(case, subcase, settings)
            continue
        numbers = {key: value for key, value in settings.items() if key != "n"}
        levels = getattr(sigmas, subcase.rpartition("_")[0])(settings["n"], **numbers)
        # exp(x) − 1 in float32, at the small end (the JSON's note).
        atol = {"rtol": 1e-5, "atol": 2e-5} if subcase.startswith("vp") else {}
        yield Check(subcase, _tensor([*levels, CLEAN.ratio]), **atol)
    for name in case.under("v_denoiser/"):
        ratios = case.inputs["v_denoiser/sigma"].double()
        level = Level(ratios, (1 + ratios**2) ** -0.5, ratios * (1 + ratios**2) ** -0.5)
        assert isinstance(level.alpha, Tensor)
        one, zero = torch.ones_like(ratios), torch.zeros_like(ratios)
        if name.endswith("/t"):
            yield Check(name, torch.atan2(torch.as_tensor(level.sigma), level.alpha) * 2 / math.pi)
        else:  # of x/α: c_skip, c_out, and c_in = α
            skip = Velocity().x0(zero, one, level) * level.alpha
            yield Check(name, torch.stack([skip, Velocity().x0(one, zero, level), level.alpha]))


def _discrete(case: Case, subcase: str, settings: dict[str, Any]) -> Iterator[Check | Left]:
    described = re.fullmatch(r"guided-diffusion (\w+) T=(\d+)", settings["betas"])
    assert described, settings["betas"]
    schedule: Schedule = decode(AnySchedule, {"kind": described[1], "timesteps": int(described[2])})
    given = case.inputs
    for name in case.under(f"{subcase}/"):
        what = name.removeprefix(f"{subcase}/")
        match what:
            case "sigmas":
                yield Check(name, torch.as_tensor(schedule.table.ratio)[1:])
            case "sigma_to_t" | "sigma_to_t_quantized":
                times = [schedule.at_ratio(ratio).time for ratio in given[f"{subcase}/sigma_query"].double().tolist()]
                if what == "sigma_to_t":
                    yield Check(name, _tensor(times), atol=0.05)
                else:
                    yield Check(name, _tensor(times).round())
            case "t_to_sigma":
                times = given[f"{subcase}/t_query"].double().tolist()
                yield Check(name, _tensor([schedule.at(time).ratio for time in times]))
            case _:
                count = what.removeprefix("get_sigmas_")
                plan = plan_of(str(schedule.timesteps)) if count == "all" else Linspace(count=int(count))
                yield Check(name, _tensor([level.ratio for level in plan.levels(schedule)]))


@adapter("schedules_edm")
def edm(case: Case) -> Iterator[Check | Left]:
    for subcase, settings in case.subcases.items():
        levels = edm_levels(settings)
        ours = {"t_steps": _tensor([*levels, CLEAN.ratio]), "euler_sigmas": _tensor(levels), "net_sigmas": _heun_calls(levels)}
        stated = {"rtol": 1e-6} if settings.get("discretization") == "iddpm" else {}
        for name in case.under(f"{subcase}/"):
            yield Check(name, ours[name.rpartition("/")[2]], **stated)
    for name in case.under("vp_precond/"):
        times = case.inputs["vp_precond/t"].tolist()
        match name.rpartition("/")[2]:
            case "sigma":
                yield Check(name, _tensor([sigmas.vp_sigma(time) for time in times]))
            case "sigma_inv":
                yield Check(name, _tensor([sigmas.vp_time(sigmas.vp_sigma(time)) for time in times]))
            case _:  # computed in float32, as its description says
                yield Check(name, _tensor([sigmas.vp_sigma(1e-5), sigmas.vp_sigma(1.0)]), rtol=1e-6)
    for name in case.under("iddpm_precond/"):
        levels = _tensor(sigmas.iddpm_chain())
        nearest = (case.inputs["iddpm_precond/sigma"][:, None] - levels).abs().argmin(1)
        match name.rpartition("/")[2]:
            case "u":
                yield Check(name, levels, rtol=1e-6)
            case "round_sigma":
                yield Check(name, levels[nearest], rtol=1e-6)
            case "round_index":
                yield Check(name, nearest)
            case _:
                yield Check(name, levels[[-2, 0]], rtol=1e-6)


def edm_range(settings: dict[str, Any]) -> tuple[float, float]:
    """The lowest and the highest σ of one of EDM's runs: its own or the default ones, within what its network allows."""
    vp_range = sigmas.vp_sigma(settings.get("epsilon_s", 1e-3)), sigmas.vp_sigma(1.0)
    defaults = {"vp": vp_range, "ve": (0.02, 100.0), "iddpm": (0.002, 81.0), "edm": (0.002, 80.0)}
    low, high = defaults[settings.get("discretization", "edm")]
    low, high = settings.get("sigma_min") or low, settings.get("sigma_max") or high
    return max(low, float(settings.get("net_sigma_min", 0))), min(high, float(settings.get("net_sigma_max", math.inf)))


def edm_betas(settings: dict[str, Any]) -> tuple[float, float]:
    """(β_d, β_min) of the variance-preserving process, which EDM's ablations fit to the range of σ."""
    return sigmas.vp_betas(*edm_range(settings), settings.get("epsilon_s", 1e-3))


def edm_levels(settings: dict[str, Any]) -> list[float]:
    """The σ of one of EDM's runs, without the final 0."""
    count, (low, high) = settings["num_steps"], edm_range(settings)
    match settings.get("discretization"):
        case "vp":
            return sigmas.vp(count, *edm_betas(settings), settings.get("epsilon_s", 1e-3))
        case "ve":
            return sigmas.exponential(count, low, high)
        case "iddpm":
            return sigmas.iddpm(count, low, high)
    return sigmas.karras(count, low, high, settings.get("rho", 7.0))


def _heun_calls(levels: list[float]) -> Tensor:
    """The noise level of every call that our Heun's method makes of the network."""
    calls: list[float | Tensor] = []

    def denoise(x: Tensor, level: Level) -> Estimate:
        calls.append(level.sigma)
        return Estimate(x, level, x)

    steps = transitions([*(Level(sigma, 1.0, sigma) for sigma in levels), CLEAN])
    list(Heun()(denoise, torch.zeros(1, 1), steps, torch.zeros_like))
    return _tensor(calls)
