"""Networks of GANs: shapes, classes, precision, spectral norm, and gradients of gradients."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.nets.gan import (
    DcganDiscriminatorConfig,
    DcganGeneratorConfig,
    Discriminator,
    DiscriminatorConfig,
    GeneratorConfig,
    ResidualDiscriminatorConfig,
    ResidualGeneratorConfig,
)
from lodestar.nets.layers import Conv2d, Linear

SMALL = {"width": 8, "multipliers": (1, 2), "norm_groups": 4}
BLOCKS = {**SMALL, "blocks": 1, "head_channels": 8}
GENERATORS: list[GeneratorConfig] = [
    DcganGeneratorConfig(**SMALL, latent=5, size=(8, 12), in_channels=2),
    ResidualGeneratorConfig(**BLOCKS, latent=5, size=(8, 12), in_channels=2),
]
DISCRIMINATORS: list[DiscriminatorConfig] = [DcganDiscriminatorConfig(**SMALL), ResidualDiscriminatorConfig(**BLOCKS)]


def kinds(configs: list[GeneratorConfig] | list[DiscriminatorConfig]) -> list[str]:
    return [config.kind for config in configs]


def built(config: DiscriminatorConfig) -> Discriminator:
    """A discriminator whose branches are not zero, as they are at first."""
    torch.manual_seed(0)
    made = config.build()
    for module in made.modules():
        if isinstance(module, Conv2d | Linear) and not config.spectral:
            module.reset_parameters()
    return made


@pytest.mark.parametrize("config", GENERATORS, ids=kinds(GENERATORS))
def test_a_generator_makes_pictures_of_latents_and_classes(config: GeneratorConfig) -> None:
    torch.manual_seed(0)
    network, z = config.replace(classes=3).build(), torch.randn(4, 5)
    for module in network.modules():
        if isinstance(module, Conv2d | Linear):
            module.reset_parameters()
    label = torch.tensor([0, 1, 2, 0])
    x = network(z, label)
    assert x.shape == (4, 2, 8, 12) and x.abs().max() <= 1
    torch.testing.assert_close(network(z[1:2], label[1:2]), x[1:2])  # of its own latent and class alone
    assert not torch.allclose(network(z, label.flip(0)), x) and not torch.allclose(network(z.flip(0), label), x)
    torch.testing.assert_close(network(z, label, torch.bfloat16), x, rtol=0, atol=0.1)
    network.lower(torch.bfloat16)
    torch.testing.assert_close(network(z, label, torch.bfloat16), x, rtol=0, atol=0.1)
    with pytest.raises(Problem, match="both must be multiples of"):
        config.replace(size=(8, 9)).build()


@pytest.mark.parametrize("config", DISCRIMINATORS, ids=kinds(DISCRIMINATORS))
def test_a_discriminator_projects_on_the_class(config: DiscriminatorConfig) -> None:
    network = built(config.replace(classes=3))
    x, label = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    logits = network(x, None, label)
    features = network.features(x, None)
    assert network.table is not None
    expected = network.logit(features)[:, 0] + (network.table.weight[label] * features).sum(1)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(network(x[2:3], None, label[2:3]), logits[2:3])


def test_a_discriminator_is_told_the_time() -> None:
    network, x = built(ResidualDiscriminatorConfig(**BLOCKS, timed=True)), torch.randn(2, 3, 8, 8)
    times = [network(x, torch.full((2,), time)) for time in (1.0, 500.0)]
    assert not torch.allclose(*times)
    with pytest.raises(Problem, match="a discriminator of kind 'dcgan' is told no time"):
        DcganDiscriminatorConfig(timed=True).build()


@pytest.mark.parametrize("attention", [(), (2,)])
def test_gradients_have_gradients(attention: tuple[int, ...]) -> None:
    """As differences say; the kernels of our own know the first ones alone."""
    network = built(ResidualDiscriminatorConfig(**BLOCKS, attention=attention))
    x = torch.randn(2, 3, 8, 8, requires_grad=True)

    def square(x: Tensor) -> Tensor:
        (slope,) = torch.autograd.grad(network(x, twice=True).sum(), x, create_graph=True)
        return slope.square().sum()

    (found,) = torch.autograd.grad(square(x), x)
    direction = torch.randn_like(x)
    with torch.enable_grad():
        ahead, behind = (square((x + step * direction).detach().requires_grad_()) for step in (3e-3, -3e-3))
    torch.testing.assert_close((found * direction).sum(), (ahead - behind) / 6e-3, rtol=0.02, atol=1e-6)


@pytest.mark.parametrize("config", DISCRIMINATORS, ids=kinds(DISCRIMINATORS))
def test_spectral_norms_are_one(config: DiscriminatorConfig) -> None:
    network = built(config.replace(spectral=True)).train()
    affine = [module for module in network.modules() if isinstance(module, Conv2d | Linear)]
    before = network(torch.zeros(1, 3, 8, 8))
    assert torch.equal(network(torch.zeros(1, 3, 8, 8)), before)  # only `iterate` takes steps of the power iteration
    for _ in range(200):
        network.iterate()
    for module in affine:
        norm = torch.linalg.matrix_norm(module.weight.flatten(1), ord=2)
        torch.testing.assert_close(norm, torch.tensor(1.0), rtol=1e-3, atol=1e-3)
