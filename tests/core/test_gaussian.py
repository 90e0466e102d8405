"""Divergences and likelihoods, against torch.distributions and against their own sums."""

from __future__ import annotations

import math

import torch
from torch.distributions import Normal, kl_divergence

from lodestar.core.gaussian import approximate_cdf, discretized_log_likelihood, kl


def test_kl_is_that_of_torch() -> None:
    mean1, logvar1, mean2, logvar2 = torch.randn(4, 50, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = kl_divergence(Normal(mean1, (logvar1 / 2).exp()), Normal(mean2, (logvar2 / 2).exp()))
    torch.testing.assert_close(kl(mean1, logvar1, mean2, logvar2), expected)
    torch.testing.assert_close(kl(mean1, logvar1, mean1, logvar1), torch.zeros_like(mean1), rtol=0, atol=1e-15)
    torch.testing.assert_close(kl(mean1, 0.0, mean2, 0.5), kl(mean1, torch.zeros(50), mean2, torch.full((50,), 0.5)))


def test_the_approximate_cdf_is_near_the_true_one() -> None:
    x = torch.linspace(-5, 5, 201, dtype=torch.float64)
    assert (approximate_cdf(x) - Normal(0.0, 1.0).cdf(x)).abs().max() < 5e-4


def test_probabilities_of_all_256_values_sum_to_one() -> None:
    values = torch.arange(256, dtype=torch.float64) / 127.5 - 1
    for mean, scale in [(0.0, 0.5), (0.3, 0.01), (-1.2, 0.1), (0.999, 0.2)]:
        logs = discretized_log_likelihood(values, torch.full((256,), mean).double(), torch.full((256,), math.log(scale)).double())
        assert abs(logs.exp().sum().item() - 1) < 1e-6


def test_where_bins_are_narrow_it_is_the_density_times_their_width() -> None:
    values = torch.arange(100, 156, dtype=torch.float64) / 127.5 - 1
    mean, scale = torch.full((56,), 0.05).double(), torch.full((56,), math.log(0.3)).double()
    expected = Normal(0.05, 0.3).log_prob(values) + math.log(2 / 255)
    torch.testing.assert_close(discretized_log_likelihood(values, mean, scale), expected, rtol=0, atol=2e-3)


def test_what_is_impossible_has_a_floor() -> None:
    impossible = discretized_log_likelihood(torch.tensor([0.0]), torch.tensor([0.9]), torch.tensor([-7.0]))
    torch.testing.assert_close(impossible, torch.tensor([math.log(1e-12)]))
