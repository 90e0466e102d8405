"""The ODE's likelihood against densities that are known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lodestar.core.estimate import Estimate, Noise
from lodestar.core.exact import Gaussian, Mixture
from lodestar.core.level import Level
from lodestar.core.likelihood import ode_log_density
from lodestar.core.schedule import Cosine, Linear

MEANS = torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.4]])
MIXTURE = Mixture(torch.tensor([0.5, 0.3, 0.2]), MEANS, torch.tensor([0.0625, 0.0225, 0.1225]))


def normal(seed: int = 0) -> Noise:
    rng = torch.Generator().manual_seed(seed)
    return lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)


def levels(count: int, high: float = 1e5, low: float = 0.01) -> list[Level]:
    """count + 1 levels with α² + σ² = 1, evenly spaced in log σ/α, the cleanest first."""
    ratios = [low * (high / low) ** (k / count) for k in range(count + 1)]
    return [Level(float(k), (1 + r * r) ** -0.5, r * (1 + r * r) ** -0.5) for k, r in enumerate(ratios)]


def test_a_gaussian() -> None:
    """The Jacobian is diagonal, so that random signs give its trace without error."""
    model = Gaussian(torch.tensor([0.4, -0.3, 0.0]), torch.tensor([0.04, 1.0, 0.25]))
    x = torch.tensor([[0.4, 0.0, 0.1], [1.0, -2.0, -0.9]], dtype=torch.float64)
    # A linear chain ends a little before pure noise, which the prior takes no notice of.
    for path, error in ((levels(200), 0.01), ([Linear().table[k] for k in range(1, 1001, 3)], 0.05)):
        ours = ode_log_density(model, path, x, normal())
        torch.testing.assert_close(ours, model.log_density(x, path[0]), rtol=0, atol=error)


def test_pure_noise_may_be_the_last_level() -> None:
    model = Gaussian(torch.tensor([0.3]), 0.09)
    schedule = Cosine(zero_terminal_snr=True)
    path = [schedule.table[k] for k in (*range(1, 1000, 6), 1000)]
    assert path[-1].alpha == 0
    x = torch.tensor([[0.1], [0.9]], dtype=torch.float64)
    torch.testing.assert_close(ode_log_density(model, path, x, normal()), model.log_density(x, path[0]), rtol=0, atol=0.01)


def traced(path: list[Level], x: Tensor) -> Tensor:
    """The log density of the mixture with the divergence of its two dimensions in full: signs (1, 1) and (1, −1), averaged."""
    signs = torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=x.dtype)
    return sum(ode_log_density(MIXTURE, path, x, lambda x, sign=sign: sign.expand_as(x)) for sign in signs) / 2  # type: ignore


def test_the_error_falls_with_the_square_of_the_steps() -> None:
    x = MIXTURE.draw(8, torch.Generator().manual_seed(0))
    truth = MIXTURE.log_density(x, levels(1)[0])
    coarse, fine = (float((traced(levels(count), x) - truth).abs().max()) for count in (100, 200))
    assert math.log2(coarse / fine) == pytest.approx(2, abs=0.15)
    assert fine < 2e-3


def test_random_signs_are_right_on_average() -> None:
    x = MIXTURE.draw(1, torch.Generator().manual_seed(1)).expand(400, 2)
    path = levels(50)
    ours = ode_log_density(MIXTURE, path, x, normal())
    exact = traced(path, x[:1])
    error = ours.std() / math.sqrt(len(ours))
    assert error > 0
    assert abs(float(ours.mean() - exact)) < 4 * error


def test_a_worse_model_is_less_likely() -> None:
    x = MIXTURE.draw(200, torch.Generator().manual_seed(2))

    def shifted(x: Tensor, level: Level) -> Estimate:
        estimate = MIXTURE(x, level)
        return Estimate(x, level, estimate.x0 + 0.2)

    right, wrong = (ode_log_density(model, levels(30), x, normal()).mean() for model in (MIXTURE, shifted))
    assert right > wrong + 0.1
