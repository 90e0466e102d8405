"""Dynamic thresholding (Imagen, Saharia et al. 2022, section 2.3): clamp x̂₀ to a high quantile of its own, and divide by it."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, spread
from lodestar.guidance.base import Context, Limit
from lodestar.guidance.clamp import limit


class Threshold(Limit):
    """Dynamic thresholding clamp(x̂₀, −q, q)/q per sample, q the quantile `ratio` of |x̂₀|, at least 1 and at most `maximum`.

    A classifier's gradient applied to x̂₀ afterwards is clamped to [−1, 1].
    """

    kind: Literal["threshold"] = "threshold"
    ratio: float = Field(default=0.995, gt=0, le=1)
    maximum: float | None = Field(default=None, ge=1, le=1e6)
    """Upper limit of q; None is no limit, as in the paper, and 1 is plain clipping."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        def denoise(x: Tensor, level: Level) -> Estimate:
            return replace(limit(inner(x, level), self._limited), limit=1.0)

        return denoise

    def _limited(self, x0: Tensor) -> Tensor:
        q = quantile(x0.abs(), self.ratio).clamp(1, self.maximum)
        # clamp(x̂₀, −q, q)/q is clamp(x̂₀/q, −1, 1).
        return (x0 / spread(q, x0)).clamp(-1, 1)


def quantile(values: Tensor, ratio: float) -> Tensor:
    """The quantile [B] of each sample of values [B, ...], linear between order statistics.

    Faster than torch.quantile, which sorts all values and refuses more than 2²⁴; only the top few are needed.
    """
    flat = values.flatten(1)
    place = ratio * (flat.shape[1] - 1)
    below = int(place)
    top = flat.topk(flat.shape[1] - below, dim=1).values
    upper = top[:, -2] if top.shape[1] > 1 else top[:, -1]
    return top[:, -1].lerp(upper, place - below)
