"""Means over areas (ADM, Improved DDPM, GLIDE)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lodestar.degradations.base import Degradation, Drawn, Size, area


class Area(Degradation):
    """Means over areas."""

    kind: Literal["area"] = "area"

    def __call__(self, x: Tensor, drawn: Drawn, size: Size) -> Tensor:
        return area(x, size)
