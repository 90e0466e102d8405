"""Adaptive projected guidance (Sadat et al. 2024): classifier-free guidance without oversaturation.

With Δ = conditional − unconditional, in x̂₀ (algorithm 1):

    Δ ← Δ + β·(Δ at the level before)         momentum, negative: the past direction is weakened
    Δ ← Δ·min(1, radius/‖Δ‖)                  a limit to its length
    Δ ← η·Δ∥ + Δ⊥                             its part along the conditional x̂₀, which saturates colours, and the rest

and x̂₀ is conditional + (s − 1)·Δ. Lengths and projections are of a whole sample.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, spread
from lodestar.guidance.base import Blend, Context


class APG(Blend):
    """Adaptive projected guidance. η = 1 without momentum and radius is classifier-free guidance."""

    kind: Literal["apg"] = "apg"
    scale: float = Field(default=3.0, ge=0, le=1e6)
    """Guidance scale s; 1 = none."""
    eta: float = Field(default=0.0, ge=0, le=1e6)
    """η, the kept fraction of Δ along the conditional x̂₀."""
    radius: float | None = Field(default=None, ge=1e-6, le=1e6)
    """Maximum length of Δ, in the L2 norm over all values of a sample; None is no limit. Published are 2.5 to 15."""
    momentum: float = Field(default=-0.5, gt=-1, lt=1)
    """Momentum β; 0 = none."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self.scale == 1:
            return inner
        pair = context.pair
        assert pair is not None
        memory = _Memory()

        def denoise(x: Tensor, level: Level) -> Estimate:
            cond, null = pair(x, level)
            change = cond.x0 - null.x0
            if self.momentum != 0:
                change = memory.joined(change, level, self.momentum)
            if self.radius is not None:
                length = change.flatten(1).norm(dim=1).clamp_min(1e-12)
                change = change * spread((self.radius / length).clamp(max=1), change)
            if self.eta != 1:
                change = change - (1 - self.eta) * along(change, cond.x0)
            return replace(cond, x0=cond.x0 + (self.scale - 1) * change)

        return denoise


def along(change: Tensor, direction: Tensor) -> Tensor:
    """The part of `change` parallel to `direction`, sample by sample; both [B, ...]. Computed in float64."""
    flat, axis = change.flatten(1).double(), F.normalize(direction.flatten(1).double(), dim=1)
    return ((flat * axis).sum(1, keepdim=True) * axis).reshape(change.shape).to(change)


@dataclass
class _Memory:
    """The Δ of the level before, for one composed denoiser.

    Valid while noise falls: at a noisier level than the last, as at the start of sampling, the memory is empty; a repeated level
    (as in Heun's method) gets the same past again.
    """

    ratio: float = 0.0
    past: Tensor | None = None
    last: Tensor | None = None

    def joined(self, change: Tensor, level: Level, momentum: float) -> Tensor:
        """Δ with this level's past added."""
        ratio = level.ratio
        assert isinstance(ratio, float), "one level for the whole batch"
        if ratio > self.ratio or (self.last is not None and self.last.shape != change.shape):
            self.past = None
        elif ratio < self.ratio:
            self.past = self.last
        total = change if self.past is None else change + momentum * self.past
        self.ratio, self.last = ratio, total.detach()
        return total
