"""Static thresholding: x̂₀ clamped to the range of the data (DDPM)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Context, Limit


class Clamp(Limit):
    """x̂₀ clamped to [−limit, limit].

    Published code clamps before a classifier's gradient and never after. At the noisiest levels of a chain that ends near pure
    noise, σ²/α multiplies any error of the gradient by thousands, and an ODE sampler leaves the range of the data in its first
    step: `folded` clamps x̂₀ with the gradient as well.
    """

    kind: Literal["clamp"] = "clamp"
    limit: float = Field(default=1.0, gt=0, le=1e6)
    folded: bool = False

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        def denoise(x: Tensor, level: Level) -> Estimate:
            estimate = inner(x, level)
            limited = limit(estimate, lambda x0: x0.clamp(-self.limit, self.limit))
            return replace(limited, limit=self.limit if self.folded else None)

        return denoise


def limit(estimate: Estimate, change: Callable[[Tensor], Tensor]) -> Estimate:
    """The estimate with `change` applied to every x̂₀, including the one whose noise is added back (CFG++).

    The x̂₀ before the change, for that noise, is kept in `unclipped`.
    """
    if estimate.renoise is None:
        return replace(estimate, x0=change(estimate.x0), unclipped=estimate.x0)
    return replace(estimate, x0=change(estimate.x0), renoise=change(estimate.renoise), unclipped=estimate.renoise)
