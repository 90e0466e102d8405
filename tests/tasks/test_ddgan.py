"""Denoising diffusion GANs: exact draws sample exactly in four steps; training, sampling, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import lodestar
from lodestar.config import Problem
from lodestar.core.exact import Mixture
from lodestar.core.level import stacked
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import X0
from lodestar.core.schedule import Cosine, Linear
from lodestar.core.transition import Transition, transitions
from lodestar.data.batch import Batch, DataFacts
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.generators.diffusion import Diffusion
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.gan import ResidualDiscriminatorConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets import RUNS
from lodestar.samplers import Ancestral
from lodestar.samplers.base import last
from lodestar.tasks import OptimizerConfig, Rng, TrainDDGan, TrainDenoiser
from lodestar.tasks.ddgan import DDGanLearner
from lodestar.training.loop import train
from tests.evaluation.tiny import randomized
from tests.training.runs import SMALL, assert_same, denoising, write_pictures

MODEL = DiffusionConfig(
    denoiser=DenoiserConfig(network=UNetConfig(**SMALL, out_channels=3), prediction=X0(), conditions=conditions(3), latent=5),
    schedule=Cosine(timesteps=20),
    size=(8, 8),
    names=tuple("abc"),
    steps="trailing:4",
    sampler=Ancestral(variance="small"),
)
TASK = TrainDDGan(model=MODEL, discriminator=ResidualDiscriminatorConfig(**SMALL | {"attention": ()}), r1=0.1, r1_every=2)
FACTS = DataFacts(3, (8, 8), tuple("abc"))


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    return write_pictures(tmp_path_factory.mktemp("pictures"), 24)


def learner(task: TrainDDGan = TASK) -> DDGanLearner:
    torch.manual_seed(0)
    return task.resolve(FACTS).build(torch.device("cpu"), torch.float32)


def batch(count: int = 6) -> Batch:
    images = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.uint8)
    return Batch({"image": images, "label": torch.arange(count) % 3})


@pytest.mark.parametrize("steps", [1, 2, 4, 8])
@pytest.mark.parametrize("schedule", [Cosine(), Linear()])
def test_exact_draws_sample_the_exact_mixture(schedule: Any, steps: int) -> None:
    """Posterior sampling with x₀ from p(x₀ | x_t): any number of steps is exact, where an expectation needs hundreds."""
    weights, means = torch.tensor([0.2, 0.5, 0.3]), torch.tensor([[-1.0, 0.5], [0.3, -0.8], [0.9, 0.9]])
    mixture = Mixture(weights, means, torch.tensor([0.01, 0.04, 0.0]))
    rng, count = torch.Generator().manual_seed(0), 40_000
    plan = parse_plan(f"trailing:{steps}").steps(schedule)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng, dtype=x.dtype)

    begin = plan[0].t
    x = begin.alpha * mixture.draw(count, rng) + begin.sigma * noise(torch.empty(count, 2, dtype=torch.float64))
    made = last(Ancestral(variance="small")(mixture.drawing(rng), x, plan, noise))
    component = torch.cdist(made, means.double()).argmin(dim=1)
    shares = component.bincount(minlength=3) / count
    torch.testing.assert_close(shares, weights, rtol=0, atol=4 * 0.5 / count**0.5)
    mean, covariance = mixture.moments()
    torch.testing.assert_close(made.mean(dim=0), mean, rtol=0, atol=0.02)
    torch.testing.assert_close(made.T.cov(), covariance, rtol=0, atol=0.02)
    if steps == 4:
        expected = last(Ancestral(variance="small")(mixture, x, plan, noise))
        assert (expected.T.cov() - covariance).abs().max() > 0.05  # an expectation in the place of a draw does not


def test_the_steps_of_a_transition_are_those_of_the_chain() -> None:
    """x_t of x_s, and x_s again by the posterior: moments of a Gaussian, for levels of each sample's own."""
    levels = parse_plan("trailing:4").levels(Cosine())
    step, rng, count = transitions(levels)[1], torch.Generator().manual_seed(0), 200_000
    several = Transition(stacked([step.t, step.t]), stacked([step.s, step.s]))
    x0 = torch.full((2, count), 0.5, dtype=torch.float64)

    def normal() -> Tensor:
        return torch.randn(2, count, generator=rng, dtype=torch.float64)

    before = step.s.alpha * x0 + step.s.sigma * normal()
    x = several.noised(before, normal())
    again = several.drawn(x0, x, normal())
    for values, level in ((x, step.t), (again, step.s)):
        torch.testing.assert_close(values.mean(dim=1), torch.full((2,), 0.5 * level.alpha).double(), rtol=0, atol=0.01)
        torch.testing.assert_close(values.std(dim=1), torch.full((2,), level.sigma).double(), rtol=0, atol=0.01)
    pair = torch.stack([before[0], x[0]]).cov()[0, 1], torch.stack([again[0], x[0]]).cov()[0, 1]
    torch.testing.assert_close(*pair, rtol=0, atol=0.01)


def test_pieces_are_the_whole() -> None:
    made = learner()
    for play in (made.tell, made.fool):
        whole = play(batch(), Rng(torch.Generator().manual_seed(0), 6))
        drawing = Rng(torch.Generator().manual_seed(0), 6)
        parts = [play(batch()[rows], drawing.piece(rows)) for rows in (slice(0, 4), slice(4, 6))]
        torch.testing.assert_close(torch.cat([part.total for part in parts]), whole.total, rtol=1e-4, atol=1e-5)


def test_a_run_resumes_to_the_same_bits_and_samples(source: str, tmp_path: Path) -> None:
    steady = {"optimizer": OptimizerConfig(rate=1e-3)}
    train(denoising(source, images=64, **steady).replace(task=TASK), tmp_path / "whole")
    for images in (32, 64):
        train(denoising(source, images=images, **steady).replace(task=TASK), tmp_path / "parts")
    assert_same(tmp_path / "whole", tmp_path / "parts")
    model = lodestar.load(tmp_path / "whole", "cpu")
    assert isinstance(model, Diffusion) and model.sample("b", count=3).images.shape == (3, 3, 8, 8)


def test_latents_are_of_seed_and_level() -> None:
    model = randomized(Diffusion(MODEL), 0)
    made = model.sample("b", count=4, seed=5).images
    assert torch.equal(model.sample("b", count=1, seed=7).images[0], made[2])
    x, level = torch.randn(2, 3, 8, 8), parse_plan("trailing:4").steps(MODEL.schedule)[0].t
    cond = {"label": torch.zeros(2, dtype=torch.int64)}
    first, again = model(x, level.time, cond).x0, model(x, level.time, cond).x0
    assert not torch.allclose(first, again)  # a latent is drawn each time
    latents = torch.randn(2, 5, generator=torch.Generator().manual_seed(0))
    bound = model.denoiser.bind(cond, latents=lambda _: latents)
    assert torch.equal(bound(x, level).x0, bound(x, level).x0)
    other = model.denoiser.bind(cond, latents=lambda _: latents.flip(0))
    assert not torch.allclose(bound(x, level).x0, other(x, level).x0)
    torch.testing.assert_close(other(x.flip(0), level).x0, bound(x, level).x0.flip(0))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"latent": None}, "task.model.denoiser.latent is null"),
        ({"variance": "learned_range"}, "task.model.denoiser.variance is 'learned_range'"),
        ({"conditions": conditions(3, (4, 4))}, "condition 'low_res': a denoising diffusion GAN is told classes alone"),
    ],
)
def test_models_that_do_not_fit_are_refused(change: dict[str, Any], reason: str) -> None:
    with pytest.raises(Problem, match=reason):
        TASK.replace(model=MODEL.replace(denoiser=MODEL.denoiser.replace(**change))).resolve(FACTS)


def test_what_such_a_model_cannot_do_is_refused() -> None:
    model = Diffusion(MODEL)
    with pytest.raises(Problem, match=r"steps 'trailing:2': this model draws its pictures at the levels of 'trailing:4' alone"):
        model.sample(0, count=1, steps="trailing:2")
    with pytest.raises(Problem, match="that is for task 'ddgan'"):
        TrainDenoiser(model=MODEL).resolve(FACTS)
    with pytest.raises(Problem, match="bits per dimension need an expectation"):
        lodestar.bpd(model, "digits", count=2)


@pytest.mark.parametrize("name", ["digits.ddgan", "cifar10.ddgan"])
def test_presets_fit_their_data(name: str) -> None:
    task = RUNS[name]().task
    assert isinstance(task, TrainDDGan)
    facts = DataFacts(task.model.denoiser.channels, task.model.size, tuple("abcdefghij"))
    resolved = task.resolve(facts)
    assert (resolved.discriminator.timed, resolved.discriminator.in_channels) == (True, 2 * facts.channels)
