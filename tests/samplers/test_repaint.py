"""RePaint: its walk, that what is known stays, and that what is made is distributed as it should be, given what is known."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.schedule import Linear
from lodestar.samplers import DDIM, Ancestral, DPMpp, EDMHeun, Heun, Sampler, last
from lodestar.samplers.repaint import repaint, walk

MEAN = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)
COVARIANCE = torch.tensor([[0.5, 0.35, -0.2], [0.35, 0.4, 0.0], [-0.2, 0.0, 0.3]], dtype=torch.float64)
MASK = torch.tensor([False, True, True])


def correlated(x: Tensor, level: Level) -> Estimate:
    """The exact denoiser of data N(MEAN, COVARIANCE)."""
    alpha, sigma = level.alpha, level.sigma
    gain = alpha * COVARIANCE @ torch.linalg.inv(alpha**2 * COVARIANCE + sigma**2 * torch.eye(3).double())
    return Estimate(x, level, (MEAN + (x.double() - alpha * MEAN) @ gain.T).to(x))


def conditional(known: float) -> tuple[Tensor, Tensor]:
    """Mean and covariance of the last two values given the first."""
    slope = COVARIANCE[1:, 0] / COVARIANCE[0, 0]
    return MEAN[1:] + slope * (known - MEAN[0]), COVARIANCE[1:, 1:] - torch.outer(slope, COVARIANCE[0, 1:])


def fill(plan: str, jump: int, resamples: int, count: int, sampler: Sampler | None = None, seed: int = 0) -> Tensor:
    rng = torch.Generator().manual_seed(seed)

    def noise(x: Tensor) -> Tensor:
        return torch.randn(x.shape, generator=rng, dtype=x.dtype)

    known = torch.tensor([0.9, 9.0, 9.0], dtype=torch.float64).expand(count, 3)
    steps = parse_plan(plan).steps(Linear())
    return last(repaint(sampler or DDIM(), correlated, noise(known), steps, noise, known, MASK, jump, resamples))


def test_the_walk_is_the_papers() -> None:
    steps = parse_plan("6").steps(Linear())
    number = {step.t.time: 5 - k for k, step in enumerate(steps)}
    gone = [(number[step.t.time], None if above is None else number[above.time]) for step, above in walk(steps, 2, 2)]
    # From level 2 back to 4, and from level 0 back to 2, once each.
    assert gone == [(5, None), (4, None), (3, 4), (4, None), (3, None), (2, None), (1, 2), (2, None), (1, None), (0, None)]
    assert [step for step, _ in walk(steps, 2, 1)] == steps
    assert all(above is None for _, above in walk(steps, 6, 5))


@pytest.mark.parametrize("sampler", [Ancestral(), DDIM(), Heun(), DPMpp()], ids=str)
def test_what_is_known_stays_exactly(sampler: Sampler) -> None:
    made = fill("12", 3, 3, 5, sampler)
    assert (made[:, 0] == 0.9).all()
    assert made[:, 1:].abs().max() < 4


def test_what_is_made_has_the_conditional_mean_and_covariance() -> None:
    mean, covariance = conditional(0.9)
    made = fill("100", jump=5, resamples=5, count=3000)[:, 1:]
    assert (made.mean(0) - mean).abs().max() < 0.07
    assert (made.T.cov() - covariance).abs().max() < 0.05
    # Pasting alone does not reach it, nor would a model that ignores what is known: the check can fail.
    pasted = fill("100", jump=5, resamples=1, count=3000)[:, 1:]
    assert (pasted.mean(0) - mean).abs().max() > 0.15
    assert (MEAN[1:] - mean).abs().max() > 0.4


def test_nothing_known_is_sampling() -> None:
    steps = parse_plan("8").steps(Linear())
    known = torch.zeros(2, 3)

    def run(whole: bool) -> Tensor:
        noise = SeededNoise([4, 5])
        x = noise.start((3,))
        if whole:
            return last(DDIM()(correlated, x, steps, noise))
        return last(repaint(DDIM(), correlated, x, steps, noise, known, torch.ones(3, dtype=torch.bool), 2, 1))

    assert torch.equal(run(True), run(False))


def test_churn_is_that_of_the_whole_run() -> None:
    steps, x, sampler = parse_plan("8").steps(Linear()), torch.ones(2, 3, dtype=torch.float64), EDMHeun(churn=1.0)
    everywhere = torch.ones(3, dtype=torch.bool)
    whole = last(sampler(correlated, x, steps, torch.ones_like))
    assert torch.equal(last(repaint(sampler, correlated, x, steps, torch.ones_like, x, everywhere, 2, 1)), whole)
    assert not torch.equal(last(EDMHeun(churn=8.0)(correlated, x, steps, torch.ones_like)), whole)
