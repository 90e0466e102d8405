"""Drawing levels in proportion to their losses."""

from __future__ import annotations

import torch

from lodestar.core.draws import LossSecondMoment


def warm(losses: list[float], history: int = 3, uniform: float = 0.001) -> LossSecondMoment:
    levels = LossSecondMoment(len(losses), history, uniform)
    for _ in range(history):
        levels.update(torch.arange(len(losses)), torch.tensor(losses))
    return levels


def test_until_every_history_is_full_all_weigh_the_same() -> None:
    levels = LossSecondMoment(3, history=2)
    levels.update(torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([9.0, 9.0, 9.0, 1.0, 1.0, 1.0]))
    assert levels.counts.tolist() == [2, 2, 1]
    assert levels.weights().tolist() == [1, 1, 1]
    levels.update(torch.tensor([2]), torch.tensor([1.0]))
    assert levels.weights()[0] > 0.8


def test_weights_are_the_root_of_the_mean_square() -> None:
    levels = LossSecondMoment(2, history=2, uniform=0.0)
    levels.update(torch.tensor([0, 0, 1, 1]), torch.tensor([3.0, 4.0, 5.0, 5.0]))
    ratio = levels.weights()[0] / levels.weights()[1]
    torch.testing.assert_close(ratio, torch.tensor((12.5**0.5) / 5, dtype=torch.float64))


def test_the_oldest_losses_go_first() -> None:
    levels = warm([1.0, 2.0])
    levels.update(torch.tensor([0, 0, 0, 0]), torch.tensor([4.0, 5.0, 6.0, 7.0]))
    assert levels.history.tolist() == [[5, 6, 7], [2, 2, 2]]


def test_a_share_stays_uniform() -> None:
    levels = warm([0.0, 1.0], uniform=0.1)
    torch.testing.assert_close(levels.probabilities(), torch.tensor([0.05, 0.95], dtype=torch.float64))


def test_draws_follow_the_probabilities_and_their_factors_undo_them() -> None:
    losses = torch.tensor([1.0, 2.0, 5.0, 12.0], dtype=torch.float64)
    levels = warm(losses.tolist())
    steps, factors = levels.draw(20000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(steps.bincount() / 20000, levels.probabilities(), rtol=0.1, atol=0, check_dtype=False)
    torch.testing.assert_close((factors * losses[steps]).mean(), losses.mean(), rtol=0.01, atol=0)
