"""Discriminator guidance: the log ratio of two Gaussians' densities leads the samples of one to the other."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lodestar.core.exact import Gaussian
from lodestar.core.level import Level
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Cosine
from lodestar.guidance import Context, Discriminator, compose
from lodestar.samplers import DDIM, Ancestral
from lodestar.samplers.base import Sampler, last

REAL, MADE = Gaussian(torch.tensor([0.4, -0.3]), 0.09), Gaussian(torch.tensor([0.1, 0.2]), 0.16)


def ratio(x: Tensor, level: Level) -> Tensor:
    """log p/q of noised data, as the best discriminator knows it."""
    return REAL.log_density(x, level) - MADE.log_density(x, level)


@pytest.mark.parametrize("sampler", [DDIM(), Ancestral(variance="large")])
def test_the_exact_ratio_makes_a_model_exact(sampler: Sampler) -> None:
    rng = torch.Generator().manual_seed(0)
    steps = parse_plan("250").steps(Cosine())
    x = torch.randn(20_000, 2, generator=rng, dtype=torch.float64)
    guided = compose([Discriminator()], Context(plain=MADE, critics={("discriminator", "noisy"): ratio}))
    made = last(sampler(guided, x, steps, lambda x: torch.randn(x.shape, generator=rng, dtype=x.dtype)))
    torch.testing.assert_close(made.mean(dim=0), REAL.mean, rtol=0, atol=0.02)
    torch.testing.assert_close(made.std(dim=0), REAL.variance.sqrt(), rtol=0, atol=0.02)


def test_a_scale_of_one_is_the_real_score() -> None:
    level = Cosine().table[400]
    x = torch.randn(5, 2, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    guided = compose([Discriminator()], Context(plain=MADE, critics={("discriminator", "noisy"): ratio}))
    torch.testing.assert_close(guided(x, level).folded().x0, REAL(x, level).x0, rtol=1e-5, atol=1e-6)
    assert not Discriminator(scale=0).active
