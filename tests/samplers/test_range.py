"""No sampler leaves the data: every kind and setting on every kind of schedule and plan ends near DDIM's picture, or refuses.

The model is exact, a mixture of Gaussians; the picture is that of DDIM in 400 steps from the same x. Where noise hides all of
the data and steps are wide, solvers of high order in ε̂ multiply differences by thousands: on a cosine chain, which begins at a
σ/α of 20,000, in 5 steps, they would end a hundred thousand times too far out.
"""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, kinds, parse
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Mixture
from lodestar.core.level import CLEAN, Level
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Constant, Cosine, EDMSigma, Linear, ScaledLinear, Schedule
from lodestar.core.transition import Transition, transitions
from lodestar.samplers import DDIM, AnySampler, Sampler, last

SCHEDULES: dict[str, Schedule] = {
    "linear": Linear(),
    "scaled_linear": ScaledLinear(),
    "cosine": Cosine(),
    "short cosine": Cosine(timesteps=100),
    "linear to pure noise": Linear(zero_terminal_snr=True),
    "cosine to pure noise": Cosine(zero_terminal_snr=True),
    "constant": Constant(),  # σ/α up to 24,000, and nearly as much at most of its steps
    "edm": EDMSigma(),
}
PLANS = (
    "leading:5", "trailing:5", "linspace:5", "karras:5", "logsnr:5", "5",
    "leading:14", "trailing:14", "karras:14", "trailing:20", "linspace:20", "karras:20", "logsnr:20", "20", "10,5,3,2",
)  # fmt: skip
SETTINGS = [
    "ddim",
    "ddim:eta=0.5",
    "ancestral",
    "ancestral:large",
    "euler",
    "euler:variable=time",
    "euler_ancestral",
    "heun",
    "heun:reach=0.5",
    "heun:variable=time",
    "heun:variable=time,reach=0.5",
    "edm",
    "edm:churn=0",
    "edm:variable=time",
    "plms",
    "plms:runge_kutta",
    *(f"dpmpp:order={order}" for order in (1, 2, 3)),
    "dpmpp:order=3,taper=4,solver=heun",
    "dpmpp:eta=1",
    *(f"dpmpp:target=epsilon,order={order},solver={solver}" for order in (2, 3) for solver in ("midpoint", "heun")),
    "dpmpp:target=epsilon,order=3,taper=4",
    "dpmpp_single",
    "dpmpp_single:order=3,solver=heun",
    "dpmpp_single:eta=1",
    "dpmpp_single:target=epsilon,eta=1",
    *(f"dpmpp_single:target=epsilon,order={k},solver={how}" for k in (2, 3) for how in ("midpoint", "heun", "stages")),
    "dpmpp_single:order=3,target=epsilon,solver=stages,fast=true",
    "dpmpp_sde",
    "dpmpp_sde:eta=0",
    "unipc",
    "unipc:order=3,taper=4",
    *(f"unipc:target=epsilon,order={order},solver={solver}" for order in (1, 2, 3) for solver in ("bh1", "bh2")),
    "unipc:target=epsilon,order=4,taper=4",
    "unipc:target=epsilon,uncorrected=99",
    *(f"lms:variable={variable},order={order}" for variable in ("ratio", "log") for order in (2, 4)),
    "lms:variable=log,taper=1",
    "dpm_adaptive",
    "dpm_adaptive:order=2",
    "predictor_corrector",
    "consistency",
]
RNG = torch.Generator().manual_seed(1)
MODEL = Mixture(
    torch.tensor([0.5, 0.3, 0.2]), torch.rand(3, 12, generator=RNG) * 1.6 - 0.8, torch.tensor([0.0625, 0.0225, 0.1225])
)
START = torch.randn(8, 12, generator=RNG)


@functools.cache
def steps_of(schedule: str, plan: str) -> tuple[Transition, ...]:
    """The steps of a plan; none where the schedule has not so many, or where they begin at hardly any noise."""
    try:
        steps = parse_plan(plan).steps(SCHEDULES[schedule])
    except Problem:
        return ()
    return tuple(steps) if steps[0].t.ratio > 1 else ()


@functools.cache
def picture(schedule: str, plan: str) -> Tensor:
    """Where DDIM leads from the plan's first level in 400 steps, even in log σ/α."""
    chain, steps = SCHEDULES[schedule], steps_of(schedule, plan)
    begin, low, path = steps[0].t, float(steps[-1].t.ratio), [steps[0].t]
    high = float(begin.ratio if begin.alpha > 0 else chain.table[chain.timesteps - 1].ratio)
    path += [chain.at_ratio(high * (low / high) ** (k / 400)) for k in range(1, 401)]
    return last(DDIM()(MODEL, START.double(), transitions([*path, CLEAN], chain), torch.zeros_like)).float()


def run(sampler: Sampler, denoise: Denoise, steps: tuple[Transition, ...]) -> Tensor:
    rng = torch.Generator().manual_seed(2)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng)

    if sampler.adaptive:
        return torch.cat([last(sampler(denoise, x[None], steps, noise)) for x in START[:2]])
    return last(sampler(denoise, START, steps, noise))


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("text", SETTINGS)
def test_every_sampler_ends_near_the_picture_of_ddim_or_refuses(text: str, schedule: str) -> None:
    sampler, refused = parse("sampler", text, AnySampler), 0
    # Of an adaptive sampler the ends of a plan count, not what is between.
    plans = [plan for plan in (("trailing:5", "karras:5") if sampler.adaptive else PLANS) if steps_of(schedule, plan)]
    for plan in plans:
        steps = steps_of(schedule, plan)
        bound = 1.6 if len(steps) > 5 else 3  # the data's deviation is 0.6
        try:
            made = run(sampler, MODEL, steps)
        except Problem as problem:
            assert steps[0].t.alpha == 0
            assert "pure noise" in str(problem)
            refused += 1
            continue
        if sampler.stochastic:  # another picture, of the same data
            assert made.square().mean().sqrt() < bound, plan
        else:
            distance = (made - picture(schedule, plan)[: len(made)]).square().mean().sqrt()
            assert distance < bound, plan
    assert refused == 0 or sampler.adaptive or getattr(sampler, "variable", "") == "time", "it refuses what it can do"


@pytest.mark.parametrize("text", [text for text in SETTINGS if not text.startswith(("dpm_adaptive", "edm", "predictor", "cons"))])
def test_so_does_it_with_a_model_that_is_wrong_by_a_part_of_the_noise(text: str) -> None:
    def inexact(x: Tensor, level: Level) -> Estimate:
        estimate = MODEL(x, level)
        return replace(estimate, x0=estimate.x0 + 0.1 * level.sigma * torch.sin(9 * x))

    sampler = parse("sampler", text, AnySampler)
    for plan in ("trailing:14", "20", "karras:20", "logsnr:14"):
        exact, wrong = (run(sampler, model, steps_of("cosine", plan)) for model in (MODEL, inexact))
        assert (exact - wrong).square().mean().sqrt() < 0.8, plan


def test_every_kind_is_here() -> None:
    assert {text.partition(":")[0] for text in SETTINGS} == set(kinds(AnySampler)) - {"own"}
