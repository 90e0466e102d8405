from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from lodestar.config import Problem, decode
from lodestar.core.level import Level
from lodestar.core.schedule import Cosine, Linear, Schedule
from lodestar.data import Batch, DataFacts
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.tasks import AnyTask, Rng, TrainClassifier
from lodestar.tasks.classify import ClassifyLearner

NAMES = ("cat", "dog", "ship")
FACTS = DataFacts(1, (8, 8), NAMES)


def task(noised: bool, schedule: Schedule = Cosine(timesteps=1000)) -> TrainClassifier:  # noqa: B008 (it is frozen)
    network = ClassifierConfig(
        width=8, multipliers=(1, 2), blocks=1, attention=(), head_channels=8, norm_groups=4, pool="adaptive", size=(32, 32)
    )
    return TrainClassifier(model=ClassifierModelConfig(network=network, schedule=schedule, noised=noised)).resolve(FACTS)


def learner(noised: bool, **settings: Any) -> ClassifyLearner:
    torch.manual_seed(0)
    return task(noised, **settings).build(torch.device("cpu"), torch.float32)


def batch(count: int = 64) -> Batch:
    """Pictures as bright as their class says."""
    label = torch.arange(count) % 3
    rng = torch.Generator().manual_seed(1)
    image = torch.randint(0, 80, (count, 1, 8, 8), generator=rng) + 80 * label[:, None, None, None]
    return Batch({"image": image.to(torch.uint8), "label": label})


def rng(seed: int = 2, count: int = 64) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), count)


def test_the_data_decides_size_channels_and_classes() -> None:
    model = task(True).model
    assert (model.network.in_channels, model.network.classes, model.network.size, model.names) == (1, 3, (8, 8), NAMES)
    assert model.size == (8, 8)
    # Once more changes nothing, as when a run is resumed.
    assert task(True).resolve(FACTS) == task(True)
    assert decode(AnyTask, task(True).to_json()) == task(True)


def test_data_that_cannot_be_classified_is_refused() -> None:
    with pytest.raises(Problem, match="labels are missing: a classifier needs data with classes"):
        task(True).resolve(DataFacts(1, (8, 8), None))
    with pytest.raises(
        Problem, match=r"the pictures' size is 9×8: both must be multiples of 2; resize them with data\.transforms"
    ):
        task(True).resolve(DataFacts(1, (9, 8), NAMES))


def test_names_must_fit_the_classes() -> None:
    with pytest.raises(Problem, match="2 names are given for 10 classes"):
        ClassifierModelConfig().replace(names=("a", "b"))


@pytest.mark.parametrize("noised", [True, False])
def test_an_untrained_classifier_is_worth_a_guess(noised: bool) -> None:
    losses = learner(noised).loss(batch(), rng())
    assert losses.total.shape == losses.terms["accuracy"].shape == (64,)
    # The head starts at zero, so that every class is as likely.
    assert torch.allclose(losses.total, torch.full((64,), math.log(3)))


def test_the_loss_is_the_cross_entropy_at_the_level_drawn() -> None:
    made, seen = learner(True), []

    def logits(x: Tensor, level: Level) -> Tensor:
        seen.append((x, level))
        return torch.arange(3.0).expand(len(x), 3)

    made.model.logits = logits  # type: ignore[assignment, method-assign]
    losses = made.loss(batch(2000), rng(count=2000))
    ((x, level),) = seen
    expected = -torch.arange(3.0).log_softmax(0)[batch(2000).label]
    assert torch.allclose(losses.total, expected)
    assert torch.equal(losses.terms["accuracy"], (batch(2000).label == 2).float())
    assert isinstance(level.time, Tensor)
    assert isinstance(level.alpha, Tensor)
    assert isinstance(level.sigma, Tensor)
    assert level.time.min() >= 0
    assert level.time.max() <= 999
    assert level.time.mean().item() == pytest.approx(499.5, rel=0.05)
    clean = batch(2000).image.float() / 127.5 - 1
    noise = (x - level.alpha.float()[:, None, None, None] * clean) / level.sigma.float()[:, None, None, None]
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(1, abs=0.02)


def test_a_plain_classifier_sees_clean_pictures_at_time_zero() -> None:
    made, seen = learner(False), []
    forward = made.model.network.forward
    made.model.network.forward = lambda x, time, dtype: (seen.append((x, time)), forward(x, time, dtype))[1]  # type: ignore
    made.loss(batch(), rng())
    ((x, time),) = seen
    assert torch.equal(x, batch().image.float() / 127.5 - 1)
    assert torch.equal(time, torch.zeros(64))


@pytest.mark.parametrize("noised", [True, False])
def test_it_learns(noised: bool) -> None:
    made = learner(noised)
    (phase,) = made.phases()
    optimizer = torch.optim.AdamW(phase.parameters, 1e-2)
    generator = torch.Generator().manual_seed(2)
    for _ in range(30):
        optimizer.zero_grad()
        phase.loss(batch(), Rng(generator, 64)).total.mean().backward()
        optimizer.step()
    made.module.eval()
    with torch.no_grad():
        numbers = made.validate(lambda: [batch(60), batch(60)])
    if noised:
        accuracies = list(numbers.values())
        assert accuracies[0] > 0.9
        assert accuracies[0] > accuracies[-1], "the noisier, the harder"
    else:
        assert numbers["accuracy/clean"] > 0.95


def test_validation_buckets_are_quarters_of_the_chain() -> None:
    made = learner(True)

    def knows_the_clean_half(x: Tensor, level: Level) -> Tensor:
        assert isinstance(level.time, Tensor)
        label = torch.arange(len(x)) % 3
        right = level.time < 500
        return one_hot(torch.where(right, label, (label + 1) % 3), 3).float()

    made.model.logits = knows_the_clean_half  # type: ignore[assignment, method-assign]
    assert made.validate(lambda: [batch(60)] * 3) == {
        "accuracy/time 0-249": 1.0,
        "accuracy/time 250-499": 1.0,
        "accuracy/time 500-749": 0.0,
        "accuracy/time 750-999": 0.0,
    }


@pytest.mark.parametrize(
    ("schedule", "names"),
    [
        (Cosine(timesteps=10), ["0-2", "3-4", "5-7", "8-9"]),
        (Linear(timesteps=4000, rescale_time=True), ["0-249.75", "250-499.75", "500-749.75", "750-999.75"]),
        (Cosine(timesteps=2), ["0-0", "1-1"]),
    ],
)
def test_validation_buckets_are_named_by_what_the_network_is_told(schedule: Schedule, names: list[str]) -> None:
    numbers = learner(True, schedule=schedule).validate(lambda: [batch(200)])
    assert list(numbers) == [f"accuracy/time {name}" for name in names]


def test_validation_is_the_same_every_time() -> None:
    made = learner(True)
    with torch.no_grad():
        for parameter in made.module.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
        first = made.validate(lambda: [batch(), batch()])
        torch.manual_seed(99)
        assert made.validate(lambda: [batch(), batch()]) == first
    assert len(set(first.values())) > 1


def test_what_it_exports_builds_the_same_classifier() -> None:
    made = learner(True)
    export = made.exports()["model"]
    assert (export.module, export.kind) == (made.module, "classifier")
    again = decode(ClassifierModelConfig, export.config).build()
    again.load_state_dict(made.module.state_dict())
    x = torch.randn(2, 1, 8, 8)
    assert torch.equal(again.logits(x), made.model.logits(x))
