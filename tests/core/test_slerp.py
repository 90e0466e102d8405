"""Spherical interpolation: its ends, its length, and what it does where there is no arc."""

from __future__ import annotations

import torch

from lodestar.core.slerp import slerp


def noises(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    a, b = torch.randn(2, 5, 3, 16, 16, generator=torch.Generator().manual_seed(seed))
    return a, b


def test_the_ends_are_exact() -> None:
    a, b = noises()
    assert torch.equal(slerp(a, b, torch.zeros(5)), a)
    assert torch.equal(slerp(a, b, torch.ones(5)), b)


def test_what_is_between_two_noises_is_as_long_as_noise_and_at_the_part_of_the_angle() -> None:
    a, b = (x / x.flatten(1).norm(dim=1)[:, None, None, None] for x in (each.double() for each in noises()))
    weight = torch.tensor([0.1, 0.25, 0.5, 0.75, 0.9], dtype=torch.float64)
    between = slerp(a, b, weight)
    torch.testing.assert_close(between.flatten(1).norm(dim=1), torch.ones(5).double())
    angle, part = (torch.linalg.vecdot(a.flatten(1), x.flatten(1)).acos() for x in (b, between))
    torch.testing.assert_close(part, weight * angle)


def test_parallel_noises_have_a_straight_line_between_them() -> None:
    a, _ = noises()
    torch.testing.assert_close(slerp(a, 2 * a, torch.full((5,), 0.5)), 1.5 * a)
    assert slerp(a, -a, torch.full((5,), 0.5)).isfinite().all()
