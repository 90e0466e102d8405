"""Noise levels of x = α·x₀ + σ·ε, as values."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

Scalar = float | Tensor
"""A Python float (one level for a whole batch: double precision, no device copy), or a float64 tensor [B] or [N]."""


@dataclass(frozen=True, slots=True)
class Level:
    """Noise level(s). The three fields are all floats, or all float64 tensors of one shape, [B] (one a sample) or [N] (a list).

    Clean data is the level α = 1, σ = 0, so no index "minus one" is needed.
    """

    time: Scalar
    """Network time."""
    alpha: Scalar
    """The factor of the data."""
    sigma: Scalar
    """The standard deviation of the noise."""

    @property
    def ratio(self) -> Scalar:
        """σ/α, the noise level of a process with unscaled data (σ of EDM and k-diffusion)."""
        return self.sigma / self.alpha if isinstance(self.alpha, Tensor) or self.alpha else math.inf

    @property
    def half_logsnr(self) -> Scalar:
        """λ = log(α/σ); infinite for clean data."""
        return log(self.alpha) - log(self.sigma)

    def __getitem__(self, index: int | slice | Tensor) -> Level:
        """Level(s) at an index of a list (floats), a slice, or a tensor of indices [B]."""
        assert isinstance(self.time, Tensor) and isinstance(self.alpha, Tensor) and isinstance(self.sigma, Tensor)
        if isinstance(index, Tensor | slice):
            return Level(self.time[index], self.alpha[index], self.sigma[index])
        return Level(self.time[index].item(), self.alpha[index].item(), self.sigma[index].item())

    def __len__(self) -> int:
        assert isinstance(self.time, Tensor)
        return len(self.time)

    def to(self, device: torch.device | str) -> Level:
        """Levels on another device; floats have none."""
        if isinstance(self.time, Tensor):
            assert isinstance(self.alpha, Tensor) and isinstance(self.sigma, Tensor)
            return Level(self.time.to(device), self.alpha.to(device), self.sigma.to(device))
        return self


CLEAN = Level(-1.0, 1.0, 0.0)
"""The level of clean data."""


def stacked(levels: Sequence[Level]) -> Level:
    """Scalar levels as a list of them: tensors float64 [N]."""
    return Level(*torch.tensor([(level.time, level.alpha, level.sigma) for level in levels], dtype=torch.float64).unbind(1))


class LevelSource(Protocol):
    """A source of levels, such as a schedule: for samplers that stop between two steps or above the first, or solve in time."""

    def at(self, time: float) -> Level:
        """The level at a network time."""

    def at_ratio(self, ratio: float) -> Level:
        """The level with this σ/α, or the nearest in range."""

    def halfway(self, t: Level, s: Level) -> Level:
        """The level half way between two in network time."""

    def rates(self, level: Level) -> tuple[float, float]:
        """Derivatives (α̇, σ̇) of α and σ by network time, at a scalar level."""


def spread(value: Scalar, x: Tensor) -> Scalar:
    """`value`, broadcastable to x [B, ...]: floats unchanged, tensors [B] as [B, 1, ...] in x's dtype, on its device."""
    if isinstance(value, Tensor):
        return value.to(x)[(...,) + (None,) * (x.ndim - 1)]
    return value


def log(value: Scalar) -> Scalar:
    """Natural logarithm; log 0 = −∞."""
    if isinstance(value, Tensor):
        return value.log()
    return math.log(value) if value > 0 else -math.inf


def exp(value: Scalar) -> Scalar:
    """Exponential of a float or a tensor."""
    return value.exp() if isinstance(value, Tensor) else math.exp(value)


def where(condition: bool | Tensor, yes: Scalar, no: Scalar) -> Scalar:
    """Element-wise choice for floats and tensors: `yes` where the condition holds, `no` elsewhere."""
    if isinstance(condition, Tensor):
        return torch.where(condition, torch.as_tensor(yes), torch.as_tensor(no))
    return yes if condition else no
