"""Adversarial losses: their optimum, their gradients, and penalties computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from lodestar.objectives.adversarial import (
    Adversarial,
    Hinge,
    NonSaturating,
    Wasserstein,
    gradient_penalty,
    squared_slope,
)


def test_at_the_optimum_the_loss_is_twice_log_2() -> None:
    """Two equal distributions on three points: gradient descent on free logits ends at 0, where the loss is 2·log 2."""
    loss, share = NonSaturating(), torch.tensor([0.2, 0.3, 0.5])
    logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    optimizer = torch.optim.LBFGS([logits], max_iter=100, tolerance_grad=1e-9, tolerance_change=0)

    def total() -> Tensor:
        optimizer.zero_grad()
        value = (share * (loss.real(logits) + loss.fake(logits))).sum()
        value.backward()  # type: ignore[no-untyped-call]
        return value

    optimizer.step(total)  # type: ignore[no-untyped-call]
    torch.testing.assert_close(logits.detach(), torch.zeros(3), rtol=0, atol=1e-3)
    assert total().item() == pytest.approx(2 * math.log(2), rel=1e-6)


def test_of_two_densities_the_best_logit_is_their_log_ratio() -> None:
    real, fake = torch.tensor([0.1, 0.9]), torch.tensor([0.5, 0.5])
    logits = (real / fake).log().requires_grad_()
    loss = NonSaturating()
    (real * loss.real(logits) + fake * loss.fake(logits)).sum().backward()
    assert logits.grad is not None
    torch.testing.assert_close(logits.grad, torch.zeros(2), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("loss", "real", "fake", "fooling"),
    [
        (Hinge(), [3.0, 0.5, 0.0], [0.0, 1.5, 3.0], [2.0, -0.5, -2.0]),
        (Wasserstein(), [2.0, -0.5, -2.0], [-2.0, 0.5, 2.0], [2.0, -0.5, -2.0]),
    ],
)
def test_losses_by_hand(loss: Adversarial, real: list[float], fake: list[float], fooling: list[float]) -> None:
    logits = torch.tensor([-2.0, 0.5, 2.0])
    for found, expected in ((loss.real, real), (loss.fake, fake), (loss.fooling, fooling)):
        torch.testing.assert_close(found(logits), torch.tensor(expected))


def quadratic(x: Tensor) -> Tensor:
    """Logits Σ x²/2, whose gradient is x."""
    return 0.5 * x.flatten(1).square().sum(1)


def test_penalties_by_hand() -> None:
    real, fake = torch.full((2, 1, 2, 2), 1.0), torch.full((2, 1, 2, 2), -1.0)
    torch.testing.assert_close(squared_slope(quadratic, real), torch.tensor([4.0, 4.0]))
    # Between them, x is 2·share − 1 everywhere, and its norm 2·|2·share − 1|.
    found = gradient_penalty(quadratic, real, fake, torch.tensor([1.0, 0.75]))
    torch.testing.assert_close(found, torch.tensor([1.0, 0.0]), rtol=1e-5, atol=1e-5)


def test_a_penalty_has_a_gradient_of_its_own() -> None:
    weight = torch.tensor([3.0, 4.0], requires_grad=True)
    squared_slope(lambda x: x @ weight, torch.zeros(1, 2)).sum().backward()
    assert weight.grad is not None
    torch.testing.assert_close(weight.grad, torch.tensor([6.0, 8.0]))  # of ‖w‖²
