"""Classifier-free guidance (Ho and Salimans 2022): unconditional + s·(conditional − unconditional).

The scale s is GLIDE's: 1 is no guidance, 0 the unconditional model. The paper's own w = s − 1 is accepted by that name. The rule
is the same in x̂₀, ε, v and the score, since each is an affine function of the others at a given (x, level).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, spread
from lodestar.guidance.base import Blend, Context


class CFG(Blend):
    """Classifier-free guidance of x̂₀. All else, such as a learned variance, is the conditional model's."""

    kind: Literal["cfg"] = "cfg"
    scale: float = Field(default=3.0, ge=0, le=1e6)
    """Guidance scale s; 1 = none. Or give w = s − 1 instead: ``CFG(w=2.0)``, ``cfg:w=2``."""
    rescale: float = Field(default=0.0, ge=0, le=1)
    """φ of Lin et al. 2023, section 3.4: how far ε̂ is rescaled to its standard deviation without guidance."""

    @model_validator(mode="before")
    @classmethod
    def _accept_w(cls, data: Any) -> Any:
        if not isinstance(data, dict) or "w" not in data:
            return data
        data = dict(data)
        w = data.pop("w")
        if "scale" in data:
            raise ValueError("give scale or w, not both: scale = w + 1")
        if isinstance(w, bool) or not isinstance(w, int | float):
            raise ValueError(f"w is {w!r}: it has to be a number")
        return {**data, "scale": w + 1.0}

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        pair = context.pair
        if self.scale == 1:
            return inner
        assert pair is not None
        if self.scale == 0 and self.rescale == 0 and context.null is not None:
            return context.null

        def denoise(x: Tensor, level: Level) -> Estimate:
            cond, null = pair(x, level)
            guided = replace(cond, x0=torch.lerp(null.x0, cond.x0, self.scale))
            # Pure noise (α = 0) leaves nothing to rescale: there ε̂ = x, whatever the guidance.
            if self.rescale == 0 or level.alpha == 0:
                return guided
            eps = rescaled(guided.eps, cond.eps, self.rescale)
            return replace(guided, x0=(x - spread(level.sigma, x) * eps) / spread(level.alpha, x))

        return denoise


def rescaled(guided: Tensor, cond: Tensor, phi: float) -> Tensor:
    """Guided noise rescaled, by the fraction φ, to the per-sample standard deviation of the conditional noise; both [B, ...].

    Lin et al. 2023, equations 15 and 16; unbiased standard deviation, over all of a sample.
    """
    ratio = cond.flatten(1).std(1) / guided.flatten(1).std(1)
    return guided * spread(phi * ratio + (1 - phi), guided)
