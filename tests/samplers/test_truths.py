"""Samplers on models that are exact: order of convergence, moments of what they draw, inversion."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Gaussian, Mixture
from lodestar.core.level import CLEAN, Level
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Cosine, Linear
from lodestar.core.transition import Transition, transitions
from lodestar.samplers import DDIM, Ancestral, DPMpp, Euler, Heun, Sampler, last

torch.set_num_threads(1)

MEANS = torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.4]])
MIXTURE = Mixture(torch.tensor([0.5, 0.3, 0.2]), MEANS, torch.tensor([0.0625, 0.0225, 0.1225]))
ODE = [DDIM(), Euler(), Heun(), DPMpp(), DPMpp(solver="heun")]


def normal(seed: int) -> Callable[[Tensor], Tensor]:
    """Noise of one generator for the whole batch."""
    rng = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)


def start(count: int, seed: int = 0) -> Tensor:
    return normal(seed)(torch.empty(count, 2, dtype=torch.float64))


def levels(count: int, high: float = 20.0, low: float = 0.05) -> list[Level]:
    """count + 1 levels with α² + σ² = 1, evenly spaced in log σ/α."""
    ratios = [high * (low / high) ** (k / count) for k in range(count + 1)]
    return [Level(float(k), (1 + r * r) ** -0.5, r * (1 + r * r) ** -0.5) for k, r in enumerate(ratios)]


@pytest.fixture(scope="module")
def solution() -> Tensor:
    """The end point of the ODE, by Richardson's extrapolation of Heun's method."""
    coarse, fine = (last(Heun()(MIXTURE, start(16), transitions(levels(n)), normal(0))) for n in (640, 1280))
    return (4 * fine - coarse) / 3


@pytest.mark.parametrize(("sampler", "order"), list(zip(ODE, (1, 1, 2, 2, 2), strict=True)), ids=str)
def test_observed_order(sampler: Sampler, order: int, solution: Tensor) -> None:
    coarse, fine = (
        float((last(sampler(MIXTURE, start(16), transitions(levels(n)), normal(0))) - solution).norm()) for n in (160, 320)
    )
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("sampler", [*ODE, DDIM(eta=1.0), DPMpp(eta=1.0), Ancestral()], ids=str)
def test_data_of_a_single_point_is_reached_in_any_number_of_steps(sampler: Sampler) -> None:
    point = torch.tensor([0.3, -0.7], dtype=torch.float64)
    path = [*levels(4), CLEAN]
    states = list(sampler(Gaussian(point, 0.0), start(8), transitions(path), normal(1)))
    torch.testing.assert_close(states[-1].x, point.expand(8, 2), rtol=0, atol=1e-12)
    if not sampler.stochastic:
        # On the way the noise stays what it was at first.
        eps = (start(8) - path[0].alpha * point) / path[0].sigma
        torch.testing.assert_close(states[1].x, path[2].alpha * point + path[2].sigma * eps, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("sampler", ODE, ids=str)
def test_inversion_then_sampling_returns(sampler: Sampler) -> None:
    data = MIXTURE.draw(16, torch.Generator().manual_seed(3))
    path = levels(400)
    latent = last(sampler(MIXTURE, data, transitions(path[::-1]), normal(0)))
    back = last(sampler(MIXTURE, latent, transitions(path), normal(0)))
    assert float(latent.std()) == pytest.approx(1, abs=0.35)
    first_order = isinstance(sampler, DDIM | Euler)
    torch.testing.assert_close(back, data, rtol=0, atol=0.03 if first_order else 3e-3)


# ----------------------------------------------------------------------------------------------------------- moments


def check_moments(samples: Tensor, mean: Tensor, covariance: Tensor) -> None:
    """Within four standard errors, estimated from the samples themselves."""
    count = len(samples)
    centred = samples - mean
    products = centred[:, :, None] * centred[:, None, :]
    assert ((samples.mean(0) - mean).abs() <= 4 * samples.std(0) / count**0.5).all()
    assert ((products.mean(0) - covariance).abs() <= 4 * products.std(0) / count**0.5).all()


@pytest.mark.parametrize(
    ("sampler", "plan"),
    [
        (Ancestral(variance="small"), "1000"),
        (Ancestral(variance="large"), "1000"),
        (DDIM(eta=1.0), "1000"),
        (DDIM(eta=0.5), "logsnr:150"),
        (DPMpp(eta=1.0), "logsnr:150"),
        (DPMpp(eta=1.0, solver="heun"), "logsnr:150"),
        (DPMpp(eta=0.5), "logsnr:150"),
        (DPMpp(), "logsnr:150"),
    ],
    ids=str,
)
def test_samples_of_a_mixture_have_its_mean_and_covariance(sampler: Sampler, plan: str) -> None:
    steps = Linear().steps(parse_plan(plan))
    check_moments(last(sampler(MIXTURE, start(2000), steps, normal(1))), *MIXTURE.moments())


def unit_gaussian(dim: int = 2) -> Gaussian:
    return Gaussian(torch.tensor([0.5, -1.0])[:dim], 1.0)


def test_large_variance_is_exact_for_data_of_unit_variance_in_few_steps() -> None:
    steps = Linear().steps(parse_plan("8"))
    model = unit_gaussian()
    check_moments(last(Ancestral(variance="large")(model, start(20_000), steps, normal(1))), model.mean, torch.eye(2).double())
    # And the small one, at this number of steps, is not: the check can fail.
    samples = last(Ancestral(variance="small")(model, start(20_000), steps, normal(1)))
    with pytest.raises(AssertionError):
        check_moments(samples, model.mean, torch.eye(2).double())


@pytest.mark.parametrize("form", ["frac", "logvar"])
@pytest.mark.parametrize("variance", ["learned", None])
def test_a_learned_variance_that_is_right_makes_few_steps_exact(form: str, variance: str | None) -> None:
    model = Gaussian(torch.tensor([0.5, -1.0]), 0.25)
    steps = Cosine().steps(parse_plan("6"))
    samples = last(Ancestral(variance=variance)(with_variance(model, steps, form), start(20_000), steps, normal(1)))
    check_moments(samples, model.mean, 0.25 * torch.eye(2).double())


def with_variance(model: Gaussian, steps: list[Transition], form: str) -> Denoise:
    """The exact model with the exact reverse variance, β̃ + (factor of x₀)²·Var(x₀ | x), told in one of the two forms."""
    step_from = {step.t.time: step for step in steps}

    def denoise(x: Tensor, level: Level) -> Estimate:
        step, estimate = step_from[level.time], model(x, level)
        of_x0, _ = step.coefficients()
        posterior = model.variance * level.sigma**2 / (level.alpha**2 * model.variance + level.sigma**2)
        logvar = (step.small + of_x0**2 * posterior).log().expand_as(x)
        if form == "logvar":
            return Estimate(x, level, estimate.x0, logvar=logvar)
        low, high = step.learned_logvar(-torch.ones_like(x)), step.learned_logvar(torch.ones_like(x))
        return Estimate(x, level, estimate.x0, frac=2 * (logvar - low) / (high - low) - 1)

    return denoise
