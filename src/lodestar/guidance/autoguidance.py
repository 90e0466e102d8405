"""Autoguidance (Karras et al. 2024): away from a worse version of the model itself, smaller or less trained.

weak + s·(model − weak), the rule of classifier-free guidance; the effect of the condition cancels, so quality rises and diversity
stays. After other guidance, (s − 1)·(model − weak) is added to the guided x̂₀.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lodestar.core.estimate import Denoise
from lodestar.guidance.base import Comparison, Context, away


class Autoguidance(Comparison):
    """Guidance by a weaker model, given under the role "weak". Costs an evaluation of the weaker model."""

    role: ClassVar[str | None] = "weak"

    kind: Literal["autoguidance"] = "autoguidance"
    scale: float = Field(default=2.0, ge=0, le=1e6)
    """Guidance scale s, the paper's w; 1 = none, 0 the weaker model."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self.scale == 1:
            return inner
        return away(inner, context, context.denoisers["weak"], self.scale - 1)

    def lacking(self, context: Context) -> str | None:
        if "weak" in context.denoisers:
            return None
        return 'autoguidance needs a weaker model, and none is given: --weak MODEL, or guides={"weak": model} in Python'
