"""Self-attention guidance (Hong et al. 2023): away from the estimate of a picture blurred where the model attends.

Where the middle of the network attends more than `threshold` times the average, x̂₀ is blurred and noised again with the same ε̂.
At the result x' the model's ε̂' is worse, and ε̂ + s·(ε̂ − ε̂') is the guided noise.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, spread
from lodestar.guidance.base import Comparison, Context


class SAG(Comparison):
    """Self-attention guidance. Costs one more evaluation."""

    kind: Literal["sag"] = "sag"
    scale: float = Field(default=0.5, ge=0, le=1e6)
    """Guidance scale s; 0 = none."""
    blur: float = Field(default=1.0, ge=0.01, le=100)
    """Standard deviation of the blur in pixels; published are 3 for ADM at 128 and 256, and 1 for latents."""
    threshold: float = Field(default=1.0, ge=0, le=1e6)
    """ψ, the threshold of blurring: places with more than ψ times the average attention are blurred."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self.scale == 0:
            return inner
        attended = context.attended
        assert attended is not None

        def denoise(x: Tensor, level: Level) -> Estimate:
            plain, seen = attended(x, level)
            estimate = plain if inner is context.plain else inner(x, level)
            # Pure noise (α = 0) holds no picture to blur.
            if level.alpha == 0:
                return estimate
            alpha, sigma = spread(level.alpha, x), spread(level.sigma, x)
            mask = F.interpolate((seen > self.threshold).to(x), size=x.shape[2:])
            # x' and x differ by α·(blurred x̂₀ − x̂₀) alone, in the mask.
            blurred = x + mask * alpha * (blur(plain.x0, self.blur) - plain.x0)
            change = plain.eps - context.plain(blurred, level).eps
            return replace(estimate, x0=estimate.x0 - self.scale * sigma / alpha * change)

        return denoise

    def lacking(self, context: Context) -> str | None:
        return None if context.attended else "sag needs a network with attention in its middle, and this model has none"


def blur(x: Tensor, deviation: float) -> Tensor:
    """Pictures [B, C, H, W] under a Gaussian blur of `deviation` pixels, cut at four deviations; edges are continued."""
    reach = max(1, math.ceil(4 * deviation))
    places = torch.arange(-reach, reach + 1, dtype=torch.float64)
    kernel = torch.exp(-0.5 * (places / deviation) ** 2)
    kernel = (kernel / kernel.sum()).to(x)
    channels = x.shape[1]
    x = F.pad(x, (reach,) * 4, mode="replicate")
    x = F.conv2d(x, kernel.view(1, 1, 1, -1).expand(channels, -1, -1, -1), groups=channels)
    return F.conv2d(x, kernel.view(1, 1, -1, 1).expand(channels, -1, -1, -1), groups=channels)
