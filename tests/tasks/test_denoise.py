from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.config import Problem, decode
from lodestar.core.draws import LossSecondMoment
from lodestar.core.prediction import Output
from lodestar.core.schedule import Cosine
from lodestar.data import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Hybrid, Losses
from lodestar.tasks import AnyTask, Rng, TrainDenoiser
from lodestar.tasks.denoise import HELD_OUT, DenoiseLearner

NAMES = ("cat", "dog", "ship")
FACTS = DataFacts(1, (8, 8), NAMES)


def task(**settings: Any) -> TrainDenoiser:
    network = UNetConfig(width=8, multipliers=(1, 2), blocks=1, attention=(), head_channels=8, norm_groups=4, out_channels=6)
    denoiser = DenoiserConfig(network=network, variance="learned_range", conditions=conditions(10))
    return TrainDenoiser(model=DiffusionConfig(denoiser=denoiser, schedule=Cosine(timesteps=20)), objective=Hybrid(), **settings)


def learner(**settings: Any) -> DenoiseLearner:
    torch.manual_seed(0)
    return task(**settings).resolve(FACTS).build(torch.device("cpu"), torch.float32)


def batch(count: int = 16) -> Batch:
    rng = torch.Generator().manual_seed(1)
    image = torch.randint(0, 256, (count, 1, 8, 8), dtype=torch.uint8, generator=rng)
    return Batch({"image": image, "label": torch.arange(count) % 3})


def rng(seed: int = 2, count: int = 16) -> Rng:
    return Rng(torch.Generator().manual_seed(seed), count)


def taught(made: DenoiseLearner, steps: int, count: int = 16) -> None:
    """Let the learner remember the losses of some steps."""
    generator = torch.Generator().manual_seed(2)
    for _ in range(steps):
        made.remember(made.loss(batch(count), Rng(generator, count)).noted)


def test_the_data_decides_size_channels_and_classes() -> None:
    resolved = task().resolve(FACTS)
    model = resolved.model
    assert (model.denoiser.network.in_channels, model.denoiser.network.out_channels) == (1, 2)
    assert (model.denoiser.classes, model.names, model.size) == (3, NAMES, (8, 8))
    assert resolved.resolve(FACTS) == resolved
    assert decode(AnyTask, resolved.to_json()) == resolved


def test_an_unconditional_run_needs_no_labels() -> None:
    model = task(conditional=False).resolve(DataFacts(1, (8, 8), None)).model
    assert (model.denoiser.classes, model.names) == (None, None)
    # There are no classes to drop, whatever the probability.
    assert task(conditional=False, label_drop=0.3).resolve(FACTS).label_drop == 0
    assert task(label_drop=0.3).resolve(FACTS).label_drop == 0.3
    made = learner(conditional=False)
    assert made.loss(Batch({"image": batch().image}), rng()).total.shape == (16,)


def test_data_that_cannot_be_learned_from_is_refused() -> None:
    with pytest.raises(Problem, match=r"labels are missing: this run is conditional .* set task.conditional=false"):
        task().resolve(DataFacts(1, (8, 8), None))
    with pytest.raises(
        Problem, match=r"the pictures' size is 8×7: both must be multiples of 2; resize them with data\.transforms"
    ):
        task().resolve(DataFacts(1, (8, 7), NAMES))


def test_a_perfect_denoiser_has_no_squared_error() -> None:
    made = learner()
    x0 = pixels.encode(batch().image)

    def knows(x: Tensor, level: Any, signals: object) -> Output:
        alpha, sigma = (value.float()[:, None, None, None] for value in (level.alpha, level.sigma))
        return Output((x - alpha * x0) / sigma, frac=torch.zeros_like(x))

    made.model.denoiser.output = knows  # type: ignore[assignment, method-assign]
    losses = made.loss(batch(), rng())
    assert losses.terms["mse"].max() < 1e-6
    made.model.denoiser.output = lambda x, level, signals: Output(torch.zeros_like(x), frac=torch.zeros_like(x))  # type: ignore
    assert made.loss(batch(256), rng(count=256)).terms["mse"].mean().item() == pytest.approx(1, abs=0.03)


def test_losses_are_drawn_from_the_generator_alone() -> None:
    made = learner()
    made.module.eval()
    first = made.loss(batch(), rng(2)).total
    torch.manual_seed(99)
    assert torch.equal(made.loss(batch(), rng(2)).total, first)
    assert not torch.equal(made.loss(batch(), rng(3)).total, first)


@pytest.mark.parametrize("label_drop", [0.0, 0.3, 1.0])
def test_labels_are_dropped_as_often_as_asked(label_drop: float) -> None:
    made, kept = learner(label_drop=label_drop), []
    encode = made.model.denoiser.encode
    made.model.denoiser.encode = lambda cond, keep: (kept.append(keep["label"]), encode(cond, keep))[1]  # type: ignore
    made.loss(batch(2000), rng(count=2000))
    (keep,) = kept
    assert 1 - keep.double().mean().item() == pytest.approx(label_drop, abs=0.03)


def test_dropped_labels_teach_the_embedding_nothing() -> None:
    for label_drop, learns in ((1.0, False), (0.0, True)):
        made = learner(label_drop=label_drop)
        with torch.no_grad():
            for parameter in made.module.parameters():
                parameter += 0.1 * torch.randn_like(parameter)
        made.loss(batch(), rng()).total.mean().backward()
        assert made.model.denoiser.label is not None
        gradient = made.model.denoiser.label.table.weight.grad
        assert (gradient is not None and bool(gradient.any())) == learns


def test_validation_is_the_mean_of_the_terms_and_the_same_every_time() -> None:
    made = learner()
    made.module.eval()
    numbers = made.validate(lambda: [batch(7), batch(16)])
    assert numbers.keys() == {"held_out/mse", "held_out/vb"}
    torch.manual_seed(99)
    assert made.validate(lambda: [batch(7), batch(16)]) == numbers
    generator = torch.Generator().manual_seed(0)
    terms = [made.loss(batch(count), Rng(generator, count)).terms["mse"] for count in (7, 16)]
    assert numbers["held_out/mse"] == pytest.approx(torch.cat(terms).mean().item())


def test_validation_neither_reads_nor_writes_what_training_remembers() -> None:
    made = learner(levels=LossSecondMoment(history=1))
    made.module.eval()
    before = made.validate(lambda: [batch()])
    assert not made.memory()["counts"].any()
    taught(made, 12)
    assert made.memory()["counts"].all()
    assert made.validate(lambda: [batch()]) == before


def test_importance_draws_leave_the_mean_loss_what_it_was() -> None:
    made, plain = learner(levels=LossSecondMoment(history=4)), learner()
    for each in (made, plain):
        each.module.eval()
    taught(made, 20, 64)
    weights = made.task.levels.weights(made.memory())  # type: ignore[union-attr]
    assert weights.max() > 3 * weights.min()
    count, names = 4000, ("mse", "vb")
    ours, theirs = (each.loss(batch(count), rng(count=count)) for each in (made, plain))
    for a, b in ((ours.total, theirs.total), *((ours.terms[name], theirs.terms[name]) for name in names)):
        error = ((a.var() + b.var()) / count).sqrt()
        assert abs(a.mean() - b.mean()) < 4 * error


def test_validation_looks_at_the_first_pictures_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    made, asked = learner(), []

    def grade(batch: Batch, *_: object) -> Losses:
        asked.append(len(batch.image))
        return Losses(torch.zeros(len(batch.image)), {"mse": torch.arange(len(batch.image)).float()})

    monkeypatch.setattr(made, "_grade", grade)

    def batches() -> Iterator[Batch]:
        for _ in range(HELD_OUT):
            yield batch(3)

    count = -(-HELD_OUT // 3)
    assert made.validate(batches)["held_out/mse"] == pytest.approx((3 * count - 2) / HELD_OUT)
    assert asked == [3] * count


def test_previews_are_pictures() -> None:
    made = learner()
    made.module.eval()
    pictures = made.preview()
    assert pictures is not None
    assert pictures.dtype == torch.uint8
    assert pictures.shape[1:] == (1, 8, 8)
    assert torch.equal(made.preview(), pictures), "the same seeds every time, to compare"


def test_what_it_exports_builds_the_same_model() -> None:
    made = learner()
    export = made.exports()["model"]
    assert (export.module, export.kind) == (made.module, "diffusion")
    assert decode(DiffusionConfig, export.config) == made.task.model
