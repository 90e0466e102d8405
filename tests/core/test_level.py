"""Levels and the arithmetic that serves floats and tensors alike."""

from __future__ import annotations

import math

import pytest
import torch

from lodestar.core.level import CLEAN, Level, exp, log, spread, where


def test_an_entry_of_a_list_is_floats_and_entries_are_tensors() -> None:
    values = torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64)
    levels = Level(torch.arange(3.0), values.flip(0), values)
    one = levels[1]
    assert (one.time, one.alpha, one.sigma) == (1.0, 0.6, 0.6)
    assert isinstance(one.alpha, float)
    some = levels[torch.tensor([2, 0])]
    assert len(some) == 2
    assert torch.as_tensor(some.sigma).tolist() == [0.8, 0.0]
    assert len(levels.to("cpu")) == 3
    assert one.to("cpu") is one


def test_ratio_and_signal_to_noise() -> None:
    level = Level(3.0, 0.8, 0.6)
    assert level.ratio == pytest.approx(0.75)
    assert level.half_logsnr == pytest.approx(math.log(0.8 / 0.6))
    assert (CLEAN.ratio, CLEAN.half_logsnr) == (0.0, math.inf)
    noise = Level(999.0, 0.0, 1.0)
    assert (noise.ratio, noise.half_logsnr) == (math.inf, -math.inf)
    batch = Level(*(torch.tensor([value], dtype=torch.float64) for value in (3.0, 0.0, 1.0)))
    assert torch.as_tensor(batch.ratio).item() == math.inf


def test_spread_leaves_floats_and_gives_tensors_their_dimensions() -> None:
    x = torch.zeros(2, 3, 4)
    assert spread(0.5, x) == 0.5
    factors = spread(torch.tensor([1.0, 2.0], dtype=torch.float64), x)
    assert isinstance(factors, torch.Tensor)
    assert (factors.shape, factors.dtype) == ((2, 1, 1), torch.float32)


def test_log_exp_where() -> None:
    assert log(0.0) == -math.inf
    assert exp(log(2.0)) == pytest.approx(2.0)
    assert torch.as_tensor(exp(log(torch.tensor([2.0])))).item() == pytest.approx(2.0)
    assert where(True, 1.0, 2.0) == 1.0
    assert torch.as_tensor(where(torch.tensor([True, False]), 1.0, 2.0)).tolist() == [1.0, 2.0]
