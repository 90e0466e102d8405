"""CFG++ (Chung et al. 2024): classifier-free guidance that stays on the manifold of the data.

x̂₀ is unconditional + λ·(conditional − unconditional) with λ in [0, 1], and a step adds back the *unconditional* noise (algorithm
2). In DDIM from t to s this equals classifier-free guidance of the scale λ/(1 − (σ_s/α_s)/(σ_t/α_t)), large for small steps and λ
at the last one.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Blend, Context


class CFGpp(Blend):
    """CFG++, for samplers that can add back another estimate's noise. The learned variance is the conditional model's."""

    kind: Literal["cfgpp"] = "cfgpp"
    scale: float = Field(default=0.6, ge=0, le=1)
    """λ in [0, 1]; 0 is the unconditional model. No value gives the conditional model."""

    @property
    def renoises(self) -> bool:
        return self.scale > 0

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        pair = context.pair
        assert pair is not None
        if self.scale == 0 and context.null is not None:
            return context.null

        def denoise(x: Tensor, level: Level) -> Estimate:
            cond, null = pair(x, level)
            x0 = torch.lerp(null.x0, cond.x0, self.scale)
            return replace(cond, x0=x0, renoise=null.x0, renoiser=f"guidance {self.kind}")

        return denoise
