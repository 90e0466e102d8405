"""The exact denoisers against what defines them: Tweedie's formula, Bayes' rule, and limits that are known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lodestar.core.estimate import Denoise
from lodestar.core.exact import FiniteSet, Gaussian, Mixture
from lodestar.core.level import CLEAN, Level

MEANS = torch.tensor([[1.0, 0.5], [-1.2, 0.3], [0.2, -1.4]], dtype=torch.float64)
VARIANCES = torch.tensor([0.06, 0.02, 0.12], dtype=torch.float64)
MIXTURE = Mixture(torch.tensor([0.5, 0.3, 0.2]), MEANS, VARIANCES, torch.tensor([0, 0, 1]))
GAUSSIAN = Gaussian(torch.tensor([0.4, -1.0]), torch.tensor([0.3, 1.5]))
LEVEL = Level(0.0, 0.8, 0.6)
X = torch.randn(7, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("model", [GAUSSIAN, MIXTURE, FiniteSet(MEANS)], ids=["gaussian", "mixture", "finite set"])
def test_the_score_of_the_estimate_is_the_gradient_of_the_log_density(model: Denoise) -> None:
    x = X.clone().requires_grad_()
    gradient = torch.autograd.grad(model.log_density(x, LEVEL).sum(), x)[0]
    torch.testing.assert_close(model(X, LEVEL).score, gradient, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    "model", [Gaussian(torch.tensor([0.4]), 0.3), Mixture(torch.tensor([1.0, 3.0]), torch.tensor([[-1.0], [0.5]]), VARIANCES[:2])]
)
def test_densities_integrate_to_one(model: Gaussian | Mixture) -> None:
    line = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for level in (LEVEL, CLEAN):
        assert float(torch.trapezoid(model.log_density(line[:, None], level).exp(), line)) == pytest.approx(1, abs=1e-9)


def test_a_mixture_of_one_component_is_a_gaussian() -> None:
    one = Mixture(torch.ones(1), MEANS[:1], VARIANCES[:1])
    gaussian = Gaussian(MEANS[0], float(VARIANCES[0]))
    torch.testing.assert_close(one(X, LEVEL).x0, gaussian(X, LEVEL).x0, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(one.log_density(X, LEVEL), gaussian.log_density(X, LEVEL), rtol=1e-12, atol=1e-12)


def test_bayes_rule_ties_the_classifier_to_the_restricted_mixture() -> None:
    prior = {0: 0.8, 1: 0.2}
    posteriors = {label: MIXTURE.log_posterior(X, LEVEL, label) for label in prior}
    torch.testing.assert_close(sum(value.exp() for value in posteriors.values()), torch.ones(7, dtype=torch.float64))
    for label, probability in prior.items():
        joint = MIXTURE.given(label).log_density(X, LEVEL).exp() * probability
        torch.testing.assert_close(joint / MIXTURE.log_density(X, LEVEL).exp(), posteriors[label].exp(), rtol=1e-6, atol=1e-9)


def test_labels_and_levels_may_differ_by_sample() -> None:
    labels = torch.tensor([0, 1, 0, 1, 1, 0, 0])
    alpha = torch.linspace(0.1, 0.99, 7, dtype=torch.float64)
    levels = Level(alpha, alpha, (1 - alpha**2).sqrt())
    together = MIXTURE.given(labels)(X, levels).x0
    posterior = MIXTURE.log_posterior(X, levels, labels)
    for row in range(7):
        label, one = int(labels[row]), X[row : row + 1]
        torch.testing.assert_close(together[row], MIXTURE.given(label)(one, levels[row]).x0[0], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(posterior[row], MIXTURE.log_posterior(one, levels[row], label)[0], rtol=1e-9, atol=1e-9)


def test_an_absent_label_is_refused() -> None:
    with pytest.raises(AssertionError, match="no component has the label 5"):
        MIXTURE.given(5)


def test_a_finite_set_gives_its_nearest_member_in_little_noise_and_its_mean_in_much() -> None:
    data = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(1))
    model = FiniteSet(data)
    near = model(data + 0.01, Level(0.0, 1.0, 0.01)).x0
    assert near.dtype == torch.float32
    torch.testing.assert_close(near, data)
    far = model(data, Level(0.0, 1.0, 1e5)).x0
    torch.testing.assert_close(far, data.mean(0).expand_as(data), rtol=1e-3, atol=1e-3)


def test_moments_are_those_of_the_draws() -> None:
    draws: Tensor = MIXTURE.draw(200_000, torch.Generator().manual_seed(2))
    mean, covariance = MIXTURE.moments()
    torch.testing.assert_close(draws.mean(0), mean, rtol=0, atol=0.01)
    torch.testing.assert_close(draws.T.cov(), covariance, rtol=0, atol=0.02)
