"""Drawing levels: in proportion to their losses, and log-normally."""

from __future__ import annotations

import math

import pytest
import torch

from lodestar.config import Problem
from lodestar.core.draws import LogNormal, LossSecondMoment, Memory, Uniform
from lodestar.core.schedule import Constant, Cosine, Linear, Schedule


def chain(timesteps: int) -> Schedule:
    return Constant(timesteps=timesteps)


def note(levels: LossSecondMoment, memory: Memory, steps: list[int], losses: list[float]) -> None:
    index = torch.tensor(steps)
    levels.remember(memory, index, torch.tensor(losses))


def warm(levels: LossSecondMoment, losses: list[float]) -> Memory:
    memory = levels.memory(chain(len(losses)))
    for _ in range(levels.history):
        note(levels, memory, list(range(len(losses))), losses)
    return memory


def test_until_every_history_is_full_all_weigh_the_same() -> None:
    levels = LossSecondMoment(history=2)
    memory = levels.memory(chain(3))
    note(levels, memory, [0, 0, 0, 1, 1, 2], [9.0, 9.0, 9.0, 1.0, 1.0, 1.0])
    assert memory["counts"].tolist() == [2, 2, 1]
    assert levels.weights(memory).tolist() == [1, 1, 1]
    note(levels, memory, [2], [1.0])
    assert levels.weights(memory)[0] > 0.8


def test_weights_are_the_root_of_the_mean_square() -> None:
    levels = LossSecondMoment(history=2, uniform=0.0)
    memory = levels.memory(chain(2))
    note(levels, memory, [0, 0, 1, 1], [3.0, 4.0, 5.0, 5.0])
    ratio = levels.weights(memory)[0] / levels.weights(memory)[1]
    torch.testing.assert_close(ratio, torch.tensor((12.5**0.5) / 5, dtype=torch.float64))


def test_the_oldest_losses_go_first() -> None:
    levels = LossSecondMoment(history=3)
    memory = warm(levels, [1.0, 2.0])
    note(levels, memory, [0, 0, 0, 0], [4.0, 5.0, 6.0, 7.0])
    assert memory["history"].tolist() == [[5, 6, 7], [2, 2, 2]]


def test_a_loss_that_is_not_finite_is_forgotten() -> None:
    levels = LossSecondMoment(history=2)
    memory = warm(levels, [1.0, 2.0])
    note(levels, memory, [0, 1, 1], [math.nan, math.inf, 3.0])
    assert memory["history"].tolist() == [[1, 1], [2, 3]]


def test_a_share_stays_uniform() -> None:
    levels = LossSecondMoment(history=3, uniform=0.1)
    memory = warm(levels, [0.0, 1.0])
    torch.testing.assert_close(levels.probabilities(memory), torch.tensor([0.05, 0.95], dtype=torch.float64))


def test_draws_follow_the_probabilities_and_their_factors_undo_them() -> None:
    losses = torch.tensor([1.0, 2.0, 5.0, 12.0], dtype=torch.float64)
    levels, schedule = LossSecondMoment(), chain(4)
    memory = warm(levels, losses.tolist())
    drawn = levels.draw(schedule, memory, 20000, torch.Generator().manual_seed(0))
    assert drawn.index is not None and drawn.factor is not None
    torch.testing.assert_close(torch.as_tensor(drawn.level.sigma), torch.as_tensor(schedule.table.sigma)[drawn.index + 1])
    shares = drawn.index.bincount() / 20000
    torch.testing.assert_close(shares, levels.probabilities(memory), rtol=0.1, atol=0, check_dtype=False)
    torch.testing.assert_close((drawn.factor * losses[drawn.index]).mean(), losses.mean(), rtol=0.01, atol=0)


def test_uniform_draws_are_the_schedules_own_and_remember_nothing() -> None:
    levels, schedule = Uniform(), Linear()
    drawn = levels.draw(schedule, levels.memory(schedule), 50, torch.Generator().manual_seed(0))
    times = torch.as_tensor(schedule.draw(50, torch.Generator().manual_seed(0)).time)
    assert torch.equal(torch.as_tensor(drawn.level.time), times)
    assert drawn.factor is None
    assert not levels.memory(schedule)


@pytest.mark.parametrize("schedule", [Linear(), Cosine(), Cosine(zero_terminal_snr=True)], ids=["linear", "cosine", "zero snr"])
def test_log_normal_draws_have_the_moments_asked_for_within_the_chains_range(schedule: Schedule) -> None:
    level = LogNormal(mean=-0.5, std=0.7).draw(schedule, {}, 20000, torch.Generator().manual_seed(0)).level
    alpha, sigma, time = (torch.as_tensor(value) for value in (level.alpha, level.sigma, level.time))
    torch.testing.assert_close(alpha**2 + sigma**2, torch.ones(20000, dtype=torch.float64))
    logs = (sigma / alpha).log()
    assert logs.mean().item() == pytest.approx(-0.5, abs=0.02)
    assert logs.std().item() == pytest.approx(0.7, abs=0.02)
    # The network is told what a sampler tells it at this level.
    for place in range(5):
        told = schedule.at_ratio(float(sigma[place] / alpha[place]))
        assert time[place].item() == pytest.approx(told.time, abs=1e-8)
        assert sigma[place].item() == pytest.approx(told.sigma, abs=1e-12)
    wide = LogNormal(mean=0.0, std=30.0).draw(schedule, {}, 200, torch.Generator().manual_seed(0)).level
    times = torch.as_tensor(wide.time)
    assert times.min() == 0
    assert schedule.timesteps - 2 <= times.max() <= schedule.timesteps - 1


def test_a_median_beyond_the_schedule_is_a_problem() -> None:
    with pytest.raises(Problem, match=r"median of σ/α is e\^9, and this schedule goes from 0.01 to 1.6e\+02"):
        LogNormal(mean=9.0).check(Linear())
    LogNormal().check(Linear())
