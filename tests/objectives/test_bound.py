"""The variational bound of an exact model is the entropy of the data; that of any other is above it."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.exact import Gaussian
from lodestar.core.level import Level
from lodestar.core.plan import Sections
from lodestar.core.schedule import Cosine, Linear, Schedule
from lodestar.core.transition import Transition
from lodestar.objectives.bound import bits_per_dimension, prior_term

STD = 0.25
SHAPE = (64, 16, 16)

# Bits of a Gaussian that is rounded to bins of 2/255, where they are narrow against it.
ENTROPY = math.log2(STD * math.sqrt(2 * math.pi * math.e) * 255 / 2)


def pictures() -> Tensor:
    x0 = STD * torch.randn(SHAPE, generator=torch.Generator().manual_seed(0))
    return ((x0 + 1) * 127.5).round() / 127.5 - 1


def exact(steps: list[Transition]) -> Denoise:
    """The true reverse chain: of Gaussian data, p(x_s | x_t) is Gaussian too, with variance β̃ + (factor of x₀)²·Var(x₀ | x_t)."""
    model, variance = Gaussian(torch.zeros(SHAPE[1:]), STD**2), {}
    for step in steps:
        t, of_x0 = step.t, float(step.coefficients()[0])
        unknown = STD**2 * float(t.sigma) ** 2 / (float(t.alpha) ** 2 * STD**2 + float(t.sigma) ** 2)
        variance[t.time] = float(step.small) + of_x0**2 * unknown

    def denoise(x: Tensor, level: Level) -> Estimate:
        return replace(model(x, level), logvar=torch.full_like(x, math.log(variance[level.time])))

    return denoise


def bits(schedule: Schedule, plan: Sections, change: float = 0.0) -> float:
    """Bits per dimension of the exact reverse chain, with `change` added to its log variances."""
    steps, rng = plan.steps(schedule), torch.Generator().manual_seed(1)
    model = exact(steps)

    def denoise(x: Tensor, level: Level) -> Estimate:
        estimate = model(x, level)
        assert estimate.logvar is not None
        return replace(estimate, logvar=estimate.logvar + change)

    result = bits_per_dimension(denoise, steps, pictures(), lambda x: torch.randn(x.shape, generator=rng))
    assert result.terms.shape == result.x0_mse.shape == result.eps_mse.shape == (SHAPE[0], len(steps))
    torch.testing.assert_close(result.total, result.prior + result.terms.sum(1))
    return result.total.mean().item()


@pytest.mark.parametrize(
    ("schedule", "plan"),
    [
        (Linear(timesteps=100), Sections(counts=(100,))),
        (Linear(), Sections(counts=(10,))),  # with few steps too: the reverse chain of a Gaussian is exact at any spacing
        (Cosine(), Sections(counts=(10, 20, 5))),
    ],
    ids=["linear100", "linear10", "cosine35"],
)
def test_the_bound_of_an_exact_model_is_the_entropy(schedule: Schedule, plan: Sections) -> None:
    assert bits(schedule, plan) == pytest.approx(ENTROPY, abs=0.03)


def test_another_variance_is_above_it() -> None:
    exactly = bits(Linear(), Sections(counts=(20,)))
    for change in (-0.4, 0.4):
        assert bits(Linear(), Sections(counts=(20,)), change) > exactly + 0.1


def test_clean_means_and_the_errors_of_a_perfect_guess() -> None:
    x0 = pictures()[:2]
    steps = Sections(counts=(5,)).steps(Linear())
    draws: list[Tensor] = []

    def noise(x: Tensor) -> Tensor:
        draws.append(torch.randn(x.shape))
        return draws[-1]

    result = bits_per_dimension(lambda x, level: Estimate(x, level, x0), steps, x0, noise)
    assert len(draws) == 5
    assert result.x0_mse.max() == 0
    assert result.eps_mse.max() < 1e-8
    assert result.terms[:, :-1].abs().max() < 1e-5  # nothing left to tell until the last bits


def test_the_prior_term() -> None:
    x0 = pictures()[:3]
    assert prior_term(Linear().table[1000], x0).max() < 1e-4
    level = Level(1.0, 0.5, 0.5)
    expected = 0.5 * (0.25 - 1 - math.log(0.25) + 0.25 * (x0**2).flatten(1).mean(1)) / math.log(2)
    torch.testing.assert_close(prior_term(level, x0), expected)
