"""Parameterizations: one linear map, and back."""

from __future__ import annotations

import pytest
import torch

from lodestar.config import kinds
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, spread
from lodestar.core.plan import Sections
from lodestar.core.prediction import EDM, AnyPrediction, Consistency, Epsilon, Flow, Output, Prediction, Previous, Score, Velocity
from lodestar.core.schedule import Cosine, Linear, Schedule

SCHEDULE = Cosine(timesteps=200)
PREDICTIONS: list[Prediction] = [
    *(member() for kind, member in kinds(AnyPrediction).items() if kind != "previous"),
    Previous(schedule=SCHEDULE),
]
every_prediction = pytest.mark.parametrize("prediction", PREDICTIONS, ids=lambda prediction: prediction.kind)
INDEX = torch.tensor([1, 2, 60, 140, 199])


def data(count: int = 5) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(0)
    x0, eps = torch.randn(2, count, 3, 2, generator=rng, dtype=torch.float64)
    return x0, eps


@every_prediction
def test_a_target_means_the_data_it_was_made_of_at_levels_of_batches(prediction: Prediction) -> None:
    x0, eps = data()
    level = SCHEDULE.table[INDEX]
    x = SCHEDULE.forward(x0, level, eps)
    estimate = Output(prediction.target(x0, eps, level)).estimate(x, level, prediction)
    torch.testing.assert_close(estimate.x0, x0, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(estimate.eps, eps, rtol=1e-7, atol=1e-7)


@every_prediction
def test_floats_and_batches_of_levels_agree(prediction: Prediction) -> None:
    x0, eps = data()
    batch = SCHEDULE.table[INDEX]
    x = SCHEDULE.forward(x0, batch, eps)
    targets = prediction.target(x0, eps, batch)
    meant = prediction.x0(eps, x, batch)
    scales = torch.as_tensor(prediction.input_scale(batch)).expand(5)
    for row, at in enumerate(INDEX.tolist()):
        level = SCHEDULE.table[at]
        assert isinstance(level.alpha, float)
        here = slice(row, row + 1)
        torch.testing.assert_close(prediction.target(x0[here], eps[here], level), targets[here])
        torch.testing.assert_close(prediction.x0(eps[here], x[here], level), meant[here], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(torch.as_tensor(prediction.input_scale(level), dtype=scales.dtype), scales[row])


def test_the_targets_are_those_of_the_papers() -> None:
    x0, eps = data()
    level = SCHEDULE.table[INDEX]
    alpha, sigma = spread(level.alpha, x0), spread(level.sigma, x0)
    x = alpha * x0 + sigma * eps
    torch.testing.assert_close(Velocity().target(x0, eps, level), alpha * eps - sigma * x0)
    torch.testing.assert_close(Score().target(x0, eps, level), -(x - alpha * x0) / sigma**2)
    torch.testing.assert_close(Flow().target(x0, eps, level), eps - x0)
    step = SCHEDULE.step_down(level)
    torch.testing.assert_close(Previous(schedule=SCHEDULE).target(x0, eps, level), step.mean(x0, x))


def test_edm_is_preconditioned_as_published() -> None:
    """Karras et al. 2022, table 1, for σ = 3 and σ_data = 0.5, in both scalings of x."""
    sigma, data_std = 3.0, 0.5
    skip, out = data_std**2 / (sigma**2 + data_std**2), sigma * data_std / (sigma**2 + data_std**2) ** 0.5
    f, unscaled = torch.tensor([[0.7]]), torch.tensor([[-2.0]])
    for alpha in (1.0, 0.25):
        level = Level(0.0, alpha, alpha * sigma)
        assert EDM().x0(f, alpha * unscaled, level).item() == pytest.approx((skip * unscaled + out * f).item())
        assert EDM().input_scale(level) * alpha == pytest.approx((sigma**2 + data_std**2) ** -0.5)
    # With unit data its target has unit variance at every level: a² + b² of independent unit x₀ and ε.
    a, b = EDM(sigma_data=1.0).coefficients(level)
    assert a**2 + b**2 == pytest.approx(1.0)


def test_previous_is_the_mean_in_its_own_chain_also_a_respaced_one() -> None:
    chain: Schedule = Sections(counts=(10,)).respace(Linear())
    previous = Previous.model_validate({"schedule": chain})
    x0, eps = data(10)
    level = chain.table[torch.arange(1, 11)]
    x = chain.forward(x0, level, eps)
    torch.testing.assert_close(previous.target(x0, eps, level), chain.step_down(level).mean(x0, x), rtol=1e-9, atol=1e-9)
    # The last step leads to clean data itself.
    torch.testing.assert_close(previous.target(x0, eps, level)[0], x0[0], rtol=1e-9, atol=1e-9)


def test_what_an_estimate_says_fits_together() -> None:
    x0, eps = data()
    level = SCHEDULE.table[INDEX]
    estimate = Estimate(SCHEDULE.forward(x0, level, eps), level, x0)
    torch.testing.assert_close(estimate.eps, eps, rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(estimate.v, Velocity().target(x0, eps, level), rtol=1e-7, atol=1e-7)
    torch.testing.assert_close(estimate.score, Score().target(x0, eps, level), rtol=1e-5, atol=1e-5)
    assert estimate.folded() is estimate


def test_folding_a_shift_moves_eps_by_sigma() -> None:
    x0, eps = data()
    level = SCHEDULE.table[INDEX]
    shift = torch.ones_like(x0)
    folded = Estimate(SCHEDULE.forward(x0, level, eps), level, x0, shift=shift).folded()
    assert folded.shift is None
    torch.testing.assert_close(folded.eps, eps - spread(level.sigma, x0) * shift, rtol=1e-6, atol=1e-6)


def test_a_fixed_mean_passes_no_gradient_and_leaves_the_variance() -> None:
    value, frac = torch.ones(2, 3, requires_grad=True), torch.ones(2, 3, requires_grad=True)
    fixed = Output(value, frac).with_fixed_mean()
    estimate = fixed.estimate(torch.zeros(2, 3), SCHEDULE.table[10], Epsilon())
    assert not estimate.x0.requires_grad
    assert estimate.frac is frac


def test_consistency_models_leave_x_as_it_is_at_the_least_noise() -> None:
    rng = torch.Generator().manual_seed(1)
    f, unscaled = torch.randn(2, 4, generator=rng, dtype=torch.float64)
    prediction = Consistency(sigma_data=0.5, sigma_min=0.002)
    for ratio in (0.002, 0.3, 80.0):
        alpha = (1 + ratio**2) ** -0.5
        skip = 0.25 / ((ratio - 0.002) ** 2 + 0.25)
        out = (ratio - 0.002) * 0.5 / (ratio**2 + 0.25) ** 0.5
        meant = prediction.x0(f, alpha * unscaled, Level(0.0, alpha, ratio * alpha))
        torch.testing.assert_close(meant, skip * unscaled + out * f, rtol=1e-12, atol=1e-12)
    level = Level(0.0, 1.0, 0.002)
    assert torch.equal(prediction.x0(f, unscaled, level), unscaled)
