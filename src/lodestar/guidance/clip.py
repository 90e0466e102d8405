"""Static thresholding: x̂₀ clamped to the range of the data (DDPM)."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Context, Guidance


class Clip(Guidance):
    """x̂₀ clamped to [−limit, limit]."""

    kind: Literal["clip"] = "clip"
    limit: float = Field(default=1.0, gt=0)

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        def denoise(x: Tensor, level: Level) -> Estimate:
            estimate = inner(x, level)
            return replace(estimate, x0=estimate.x0.clamp(-self.limit, self.limit))

        return denoise
