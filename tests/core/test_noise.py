"""Noise that belongs to a sample, not to its batch."""

from __future__ import annotations

import pytest
import torch

from lodestar.core.noise import SeededNoise


def test_a_sample_has_the_same_noise_in_every_batch() -> None:
    together, alone = SeededNoise([5, 6, 7]), SeededNoise([6])
    for draw in range(3):
        x = torch.zeros(3, 2, 4)
        assert torch.equal(together(x)[1], alone(x[:1])[0]), f"draw {draw}"


def test_draws_differ_between_seeds_and_between_calls() -> None:
    noise = SeededNoise([1, 2])
    first, second = noise.start((100,)), noise(torch.zeros(2, 100))
    assert not torch.equal(first[0], first[1])
    assert not torch.equal(first, second)
    assert torch.equal(first, SeededNoise([1, 2]).start((100,)))


def test_it_is_standard_normal_in_the_dtype_of_its_argument() -> None:
    draws = SeededNoise([3])(torch.empty(1, 100000, dtype=torch.bfloat16))
    assert draws.dtype == torch.bfloat16
    assert draws.float().mean().abs() < 0.02
    assert (draws.float().std() - 1).abs() < 0.02


def test_seeds_of_any_size_serve_and_a_batch_of_another_size_does_not() -> None:
    SeededNoise([-1, 2**64 + 3]).start((2,))
    with pytest.raises(AssertionError, match="2 samples, 1 seeds"):
        SeededNoise([0])(torch.zeros(2, 1))


def test_temperature_is_the_deviation() -> None:
    assert torch.equal(SeededNoise([1, 2], 0.5).start((3, 2)), SeededNoise([1, 2]).start((3, 2)) / 2)
