"""Noise that belongs to a sample, not to its batch."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch

from lodestar.config import Problem
from lodestar.core.noise import SeededNoise, generator, seeds_from


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


def test_seeds_of_32_bits_are_those_of_torch() -> None:
    for seed in (0, 1, 12345, 2**32 - 1):
        expected = torch.randn(1000, generator=torch.Generator().manual_seed(seed))
        assert torch.equal(SeededNoise([seed]).start((1000,))[0], expected)


def test_all_64_bits_of_a_seed_count() -> None:
    seeds = [(5 + (1 << bit)) % 2**64 for bit in range(64)] + [5, 2**64 - 1, 2**32 * 5, 2**32 * 5 + 1, 2**32 + 5 * 2**32]
    noise = SeededNoise(sorted(set(seeds))).start((64,))
    nearest = torch.cdist(noise, noise).fill_diagonal_(torch.inf).min()
    assert nearest > 5, "independent draws of 64 values are about √128 apart"


def test_long_seeds_are_those_of_pythons_mersenne_twister_and_as_normal_as_others() -> None:
    seed, made = 2**32 + 7, random.Random(2**32 + 7)
    words = torch.empty(1000, dtype=torch.int64).random_(0, 2**31, generator=generator(seed))
    expected = [made.getrandbits(32) % 2**31 for _ in range(2000)]
    assert words.tolist() == expected[1::2], "torch takes two words for a number, and the lower bits of the second"
    draws = SeededNoise([2**63 + k for k in range(50)]).start((4000,)).double()
    assert draws.mean().abs() < 4 / 200_000**0.5
    assert (draws.square().mean() - 1).abs() < 4 * (2 / 200_000) ** 0.5
    correlations = torch.corrcoef(draws)[*torch.triu_indices(50, 50, 1)]
    assert correlations.abs().max() < 5.5 / 4000**0.5


@pytest.mark.parametrize(
    ("first", "count", "said"),
    [
        (-1, 1, "seed is -1: from 0 to 18446744073709551615"),
        (2**64, 1, "seed is 18446744073709551616: from 0 to"),
        (2**64 - 3, 4, "seed is 18446744073709551613: 4 pictures have the seeds up to 18446744073709551616, and the last"),
        (1.5, 1, "seed is 1.5: a whole number from 0"),
        ("7", 1, "seed is '7': a whole number from 0"),
    ],
)
def test_seeds_beyond_64_bits_are_problems(first: int, count: int, said: str) -> None:
    with pytest.raises(Problem) as problem:
        seeds_from(first, count)
    assert str(problem.value).startswith(said)
    if count == 1:
        with pytest.raises(Problem):
            SeededNoise([0, first])


def test_seeds_follow_one_another_to_the_last() -> None:
    assert seeds_from(2**64 - 3, 3) == (2**64 - 3, 2**64 - 2, 2**64 - 1)
    assert seeds_from(np.int64(4), 2) == (4, 5)


def test_a_batch_of_another_size_does_not_serve() -> None:
    with pytest.raises(AssertionError, match="2 samples, 1 seeds"):
        SeededNoise([0])(torch.zeros(2, 1))


def test_temperature_is_the_deviation() -> None:
    assert torch.equal(SeededNoise([1, 2], 0.5).start((3, 2)), SeededNoise([1, 2]).start((3, 2)) / 2)
