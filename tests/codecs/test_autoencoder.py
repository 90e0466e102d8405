"""Autoencoders: a linear VAE reaches the evidence of probabilistic PCA; bounds bound; latents have the moments that are told."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Literal

import pytest
import torch
from torch import Tensor, nn

from lodestar.codecs.autoencoder import AutoencoderCodec, AutoencoderCoder
from lodestar.codecs.likelihood import BIN, BernoulliLikelihood, GaussianLikelihood, Likelihood
from lodestar.config import Problem
from lodestar.core.noise import SeededNoise
from lodestar.evaluation.evidence import bounds
from lodestar.generators.autoencoder import Autoencoder
from lodestar.nets import autoencoder
from lodestar.nets.autoencoder import AutoencoderConfig, Compressor, CompressorConfig

SMALL = AutoencoderConfig(in_channels=1, width=8, multipliers=(1, 2), blocks=1, norm_groups=4, head_channels=8, latent=3)


class LinearConfig(CompressorConfig):
    """Affine maps of whole pictures of 2×2."""

    kind: Literal["linear"] = "linear"

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return self.latent, 1, 1

    def build(self, moments: int = 1, outputs: int = 1) -> Linear:
        return Linear(self, moments)


class Linear(Compressor):
    def __init__(self, config: LinearConfig, moments: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(4, config.latent), nn.Linear(config.latent, 4)
        # Of a linear Gaussian model the posterior's variance is the same for every picture.
        self.logvar = nn.Parameter(torch.full((config.latent * (moments - 1),), 4.0))

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        mean = self.down(x.flatten(1))
        return torch.cat([mean, self.logvar.expand(len(mean), -1)], dim=1)[:, :, None, None]

    def decode(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        return self.up(z.flatten(1)).view(-1, 1, 2, 2)

    def lower(self, dtype: torch.dtype) -> None:
        """It has no torso."""


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    autoencoder.KINDS.register(LinearConfig)
    yield
    autoencoder.KINDS.remove(LinearConfig)


def evidence_of_ppca(x: Tensor, latent: int) -> float:
    """Mean log-density of points [N, D] under the most likely probabilistic PCA (Tipping and Bishop 1999, equation 8)."""
    values = torch.linalg.eigvalsh(torch.cov(x.T, correction=0)).flip(0)
    rest = values[latent:].mean()
    total = values[:latent].log().sum() + (len(values) - latent) * rest.log() + len(values) * (1 + math.log(2 * math.pi))
    return float(-0.5 * total)


def test_a_linear_vae_reaches_the_evidence_of_probabilistic_pca() -> None:
    generator = torch.Generator().manual_seed(0)
    mixing = torch.randn(2, 4, generator=generator)
    x = torch.randn(200, 2, generator=generator) @ mixing + 0.3 * torch.randn(200, 4, generator=generator) + 0.5
    torch.manual_seed(0)
    model = AutoencoderCodec(network=LinearConfig(in_channels=1, latent=2), size=(2, 2)).build()
    pictures = x.view(-1, 1, 2, 2)
    # The expectation over the posterior by points that have its moments exactly: ±√2 along each of the two latents.
    draws = [math.sqrt(2) * sign * torch.eye(2)[axis].view(1, 2, 1, 1) for axis in range(2) for sign in (-1, 1)]

    def loss() -> Tensor:
        posterior, likelihood = model.posterior(pictures), model.config.likelihood
        costs = [likelihood.cost(model.output(posterior.draw(draw)), pictures, model.log_scale) for draw in draws]
        bound: Tensor = (torch.stack(costs).mean(0) + posterior.cost().flatten(1).sum(1) / 4).mean()
        optimizer.zero_grad()
        bound.backward()
        return bound

    optimizer = torch.optim.LBFGS(model.parameters(), max_iter=400, line_search_fn="strong_wolfe", tolerance_change=1e-12)
    optimizer.step(loss)
    found = -4 * (loss().item() + math.log(BIN))  # a density, without the bins' width
    assert found == pytest.approx(evidence_of_ppca(x, 2), abs=0.003)
    assert found <= evidence_of_ppca(x, 2) + 1e-5


@pytest.mark.parametrize("likelihood", [GaussianLikelihood(), GaussianLikelihood(variance="each"), BernoulliLikelihood()])
def test_likelihoods_of_all_values_add_up_to_one(likelihood: Likelihood) -> None:
    gaussian = isinstance(likelihood, GaussianLikelihood)
    values = torch.arange(256) / 127.5 - 1 if gaussian else torch.tensor([-1.0, 1.0])
    out = torch.tensor([0.3, -1.5]).repeat(len(values), 1)[:, : likelihood.outputs, None, None]
    chance = likelihood.log_probability(out, values[:, None, None, None], torch.tensor(-2.0)).exp()
    assert float(chance.sum()) == pytest.approx(1, abs=1e-4)
    mean = float((chance * values).sum())
    assert mean == pytest.approx(float(likelihood.mean(out)[0]), abs=0.01)


def test_the_cost_of_training_is_the_density_of_a_bin_and_a_learned_scale_ends_at_the_error() -> None:
    likelihood, x = GaussianLikelihood(), torch.randint(256, (4, 1, 3, 3), generator=torch.Generator().manual_seed(0)) / 127.5 - 1
    out, scale = x + 0.2, torch.tensor(-1.0)
    exact = -likelihood.log_probability(out, x, scale) / 9
    inside = (x.abs() < 0.9).flatten(1).all(1)
    torch.testing.assert_close(likelihood.cost(out, x, scale)[inside], exact[inside], rtol=0.01, atol=0.0)
    costs = [float(likelihood.cost(out, x, torch.tensor(math.log(each))).mean()) for each in (0.15, 0.2, 0.25)]
    assert costs[1] == min(costs)


def model(**settings: object) -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(AutoencoderCodec(network=SMALL, size=(8, 8)).replace(**settings)).eval()


@torch.no_grad()
def test_bounds_agree_with_the_integral_and_more_draws_are_tighter() -> None:
    small = model(network=LinearConfig(in_channels=1, latent=1), size=(2, 2), likelihood=BernoulliLikelihood())
    x = torch.tensor([[1.0, -1, 1, 1], [-1, -1, 1, -1]]).view(2, 1, 2, 2)
    grid = torch.linspace(-8, 8, 4001, dtype=torch.float64)
    for number, picture in enumerate(x):
        every = small.output(grid.float().view(-1, 1, 1, 1))
        likely = small.config.likelihood.log_probability(every, picture.expand(4001, 1, 2, 2), small.log_scale).double()
        exact = -((likely - grid**2 / 2).logsumexp(0) + math.log(16 / 4000) - 0.5 * math.log(2 * math.pi)) / (4 * math.log(2))
        several = [bounds(small, x, SeededNoise([5, 6]), draws)[:, number].detach() for draws in (4, 2000)]
        assert float(several[1][2]) == pytest.approx(float(exact), abs=0.02)
        assert float(several[1][0] + several[1][1]) > float(exact) + 0.01  # the ELBO of an untrained encoder is loose


def test_latents_are_standardized_and_decoding_is_the_inverse_of_encoding() -> None:
    made = model(posterior="point")
    images = torch.randint(256, (64, 1, 8, 8), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    z = made.latents(images / 127.5 - 1)
    made.follow(z[:32])
    made.follow(z[32:])
    encoded = made.encode(images)
    assert encoded.shape == (64, 3, 4, 4)
    torch.testing.assert_close(encoded.mean(0), torch.zeros(3, 4, 4), atol=1e-4, rtol=0)
    torch.testing.assert_close(encoded.std(0, correction=0), torch.ones(3, 4, 4), atol=1e-3, rtol=0)
    torch.testing.assert_close(made.mean + made.std * encoded, z, atol=1e-5, rtol=0)
    # Without a prior latents are drawn with the moments of the pictures'.
    drawn = made.draw(torch.randn(5000, 3, 4, 4, generator=torch.Generator().manual_seed(2)))
    torch.testing.assert_close(drawn.mean(0), made.mean, atol=0.1 * float(made.std.max()), rtol=0)


def test_codecs_say_the_shapes_of_both_sides() -> None:
    codec = AutoencoderCodec(network=SMALL, size=(8, 8))
    assert codec.code_shape((1, 8, 8)) == (3, 4, 4) and codec.data_shape((3, 4, 4)) == (1, 8, 8)
    assert isinstance(codec.build(), AutoencoderCoder)
    with pytest.raises(Problem, match=r"the codec is of pictures of 1 channels and size \(8, 8\), the data's are of 3"):
        codec.code_shape((3, 8, 8))
    with pytest.raises(Problem, match="size is 8×7: both must be multiples of 2"):
        codec.replace(size=(8, 7))
