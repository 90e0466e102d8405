"""Perturbed-attention guidance (Ahn et al. 2024): away from the model with attention to each place itself alone.

x̂₀ + s·(x̂₀ − x̂₀ with the attention maps of a part of the network replaced by the identity); the same in ε̂. Needs no classes
and no training, and sharpens the structure of pictures.
"""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lodestar.core.estimate import Denoise
from lodestar.guidance.base import Comparison, Context, away


class PAG(Comparison):
    """Perturbed-attention guidance. Costs one more evaluation."""

    kind: Literal["pag"] = "pag"
    scale: float = Field(default=1.0, ge=0, le=1e6)
    """Guidance scale s; 0 = none."""
    part: Literal["down", "middle", "up"] = "middle"
    """Part of the network with perturbed attention; the paper's is near the middle."""

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        if self.scale == 0:
            return inner
        return away(inner, context, context.perturbed[self.part], self.scale)

    def lacking(self, context: Context) -> str | None:
        if not context.perturbed:
            return "pag needs a network with attention, and this model has none"
        if self.part not in context.perturbed:
            return f"pag cannot perturb part {self.part!r}: this network attends in {', '.join(context.perturbed)}"
        return None
