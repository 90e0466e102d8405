"""Loss weights of levels, in terms of the squared error of x̂₀, independent of the network's prediction.

With SNR = α²/σ² the unweighted losses of the predictions correspond to the weights SNR for ε, 1 for x₀, SNR + 1 for v.
"""

from __future__ import annotations

import abc
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config
from lodestar.core.level import Level
from lodestar.core.prediction import Prediction


class Weighting(Config, abc.ABC):
    """A loss weight for every level."""

    @abc.abstractmethod
    def of_x0(self, snr: Tensor) -> Tensor:
        """Weights [B] of the squared error of x̂₀ at signal-to-noise ratios α²/σ² = snr [B], 0 included."""

    def __call__(self, level: Level, prediction: Prediction) -> Tensor:
        """Factors [B] of squared errors of a network's output at levels [B]."""
        a, b = prediction.coefficients(level)
        # An error e of the output is an error σ/(α·b − σ·a)·e of x̂₀.
        of_output = level.sigma / (level.alpha * b - level.sigma * a)
        return self.of_x0(torch.as_tensor((level.alpha / level.sigma) ** 2)) * of_output**2


class MinSNR(Weighting):
    """min(SNR, γ) weights: levels with little noise, which are easy, count no more than a level of SNR = γ (Hang et al. 2023)."""

    kind: Literal["min_snr"] = "min_snr"
    gamma: float = Field(default=5.0, gt=0, le=1e6)

    def of_x0(self, snr: Tensor) -> Tensor:
        return snr.clamp(max=self.gamma)


class P2(Weighting):
    """P2 weights SNR/(k + SNR)^γ, which is 1/(k + SNR)^γ on the simple loss of ε: invisible detail counts less (Choi et al.
    2022)."""

    kind: Literal["p2"] = "p2"
    gamma: float = Field(default=1.0, ge=0, le=100)
    k: float = Field(default=1.0, ge=1e-6, le=1e6)

    def of_x0(self, snr: Tensor) -> Tensor:
        return snr / (self.k + snr) ** self.gamma


AnyWeighting = Annotated[MinSNR | P2, Field(discriminator="kind")]
