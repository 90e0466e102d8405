"""The classifier of noised pictures under every switch of the backbone and with every pool."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.config import Problem, decode
from lodestar.nets.classifier import Classifier, ClassifierConfig

from .networks import CLASSIFIERS, classifier_config, normal, randomized

every_switch = pytest.mark.parametrize("changes", CLASSIFIERS.values(), ids=CLASSIFIERS.keys())
every_pool = pytest.mark.parametrize("pool", ["adaptive", "attention", "spatial", "spatial_v2"])


def classifier(**changes: Any) -> Classifier:
    network = randomized(classifier_config(**changes).build())
    assert isinstance(network, Classifier)
    return network


def inputs(config: ClassifierConfig) -> tuple[Tensor, Tensor]:
    return normal(2, config.in_channels, *config.size), torch.tensor([3.0, 250.5])


@every_switch
def test_runs_and_its_gradient_reaches_every_parameter(changes: dict[str, Any]) -> None:
    network = classifier(**changes).train()
    x, time = inputs(network.config)
    logits = network(x.requires_grad_(), time)
    assert logits.shape == (2, 5)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    (logits * normal(2, 5, seed=3)).sum().backward()
    for name, tensor in [("x", x), *network.named_parameters()]:
        assert tensor.grad is not None, name
        assert tensor.grad.abs().max() > 1e-6, name


@every_switch
def test_a_configuration_survives_json(changes: dict[str, Any]) -> None:
    config = classifier_config(**changes)
    assert decode(ClassifierConfig, config.to_json()) == config


@every_pool
def test_a_torso_in_16_bits_stays_near_float32(pool: str) -> None:
    network = classifier(pool=pool, width=32).eval()
    given = inputs(network.config)
    with torch.no_grad():
        exact, rough = network(*given), network(*given, torch.bfloat16)
    assert rough.dtype == torch.float32
    assert 0 < float((rough - exact).abs().max() / exact.abs().max()) < 3e-2


@every_pool
def test_recomputing_activations_changes_no_gradient(pool: str) -> None:
    gradients = []
    for checkpointing in (False, True):
        network = classifier(pool=pool, checkpointing=checkpointing).train()
        network(*inputs(network.config)).square().sum().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    for stored, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(recomputed, stored, rtol=1e-5, atol=1e-6)


@every_pool
def test_the_order_of_memory_does_not_matter(pool: str) -> None:
    network = classifier(pool=pool).eval()
    x, time = inputs(network.config)
    torch.testing.assert_close(network(x.to(memory_format=torch.channels_last), time), network(x, time), rtol=0, atol=1e-6)


@pytest.mark.parametrize("pool", ["adaptive", "spatial", "spatial_v2"])
def test_only_the_attention_pool_is_bound_to_a_size(pool: str) -> None:
    network = classifier(pool=pool)
    assert network(normal(1, 3, 12, 4), torch.zeros(1)).shape == (1, 5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"size": [8, 7]}, "size is 8×7: both must be multiples of 2"),
        ({"size": [0, 8]}, "size.0 is 0: input should be greater than or equal to 1"),
        ({"classes": 0}, "classes is 0"),
        ({"pool": "spacial"}, "did you mean 'spatial'?"),
        ({"out_channels": 3}, "unknown field 'out_channels'"),
    ],
    ids=str,
)
def test_what_is_wrong_with_a_configuration_is_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(Problem) as raised:
        classifier_config(**changes)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)
