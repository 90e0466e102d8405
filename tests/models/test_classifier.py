from __future__ import annotations

import pytest
import torch

from lodestar.core.level import Level
from lodestar.core.schedule import Cosine
from lodestar.models.classifier import CLEAN, ClassifierModelConfig, PictureClassifier
from lodestar.nets.classifier import ClassifierConfig, Pool


def classifier(pool: Pool = "attention", noised: bool = True) -> PictureClassifier:
    torch.manual_seed(0)
    network = ClassifierConfig(
        width=32, multipliers=(1, 2), blocks=1, attention=(), head_channels=32, pool=pool, size=(8, 8), classes=4
    )
    model = ClassifierModelConfig(network=network, schedule=Cosine(), noised=noised).build().eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)
    return model


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))


def test_logp_is_a_distribution_over_labels(x: torch.Tensor) -> None:
    model, level = classifier(), Cosine().at(300)
    logp = torch.stack([model.log_probability(x, level, torch.eye(4)[[label] * 4]) for label in range(4)], dim=1)
    assert torch.allclose(logp.exp().sum(1), torch.ones(4), atol=1e-5)
    assert torch.allclose(logp, model.logits(x, level).log_softmax(1))


def test_logp_has_a_gradient_in_the_picture(x: torch.Tensor) -> None:
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(classifier().log_probability(x, Cosine().at(300), torch.eye(4)).sum(), x)
    assert (gradient.flatten(1).norm(dim=1) > 0).all()


def test_one_level_for_all_and_the_same_level_for_each_agree(x: torch.Tensor) -> None:
    model, one = classifier(), Cosine().at(300)
    each = Cosine().table[torch.full((4,), 301)]
    assert torch.equal(model.logits(x, one), model.logits(x, each))
    assert not torch.equal(model.logits(x, one), model.logits(x, Cosine().at(600)))


def test_signs_add_what_is_wanted_and_take_away_what_is_not(x: torch.Tensor) -> None:
    model, level = classifier(), Cosine().at(300)
    signs = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, -1, 0], [0, 0, 0, 0]])
    logp = model.logits(x, level).log_softmax(1)
    expected = torch.stack([logp[0, 0], logp[1, 0] + logp[1, 1], -logp[2, 2], torch.zeros(())])
    assert torch.allclose(model.log_probability(x, level, signs), expected)


def test_a_plain_classifier_knows_clean_pictures_alone(x: torch.Tensor) -> None:
    model = classifier(noised=False)
    assert torch.allclose(model.log_probability(x, CLEAN, torch.eye(4)).exp(), model.logits(x).softmax(1).diagonal())
    with pytest.raises(AssertionError, match="knows no noise"):
        model.log_probability(x, Cosine().at(300), torch.eye(4))


@pytest.mark.parametrize(("pool", "width"), [("adaptive", 64), ("attention", 64), ("spatial", 224), ("spatial_v2", 224)])
def test_features_are_one_vector_a_picture(pool: Pool, width: int, x: torch.Tensor) -> None:
    model = classifier(pool)
    features = model.features(x)
    assert features.shape == (4, width)
    assert torch.equal(features, model.features(x, Level(0.0, 1.0, 0.0)))
    if pool == "adaptive":
        assert torch.allclose(model.network.head(features), model.logits(x), atol=1e-6)


def test_lowered_it_computes_nearly_the_same_and_gives_float32(x: torch.Tensor) -> None:
    model, level = classifier(), Cosine().at(300)
    expected = model.logits(x, level)
    found = model.lower(torch.bfloat16).logits(x, level)
    assert model.network.stem.weight.dtype == torch.bfloat16
    assert found.dtype == model.features(x, level).dtype == torch.float32
    assert (found - expected).norm() < 0.05 * expected.norm()
