"""Bilinear resizing."""

from __future__ import annotations

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lodestar.degradations.base import Degradation, Drawn, Size


class Bilinear(Degradation):
    """Bilinear resizing."""

    kind: Literal["bilinear"] = "bilinear"
    antialias: bool = True
    """Widen the filter with the factor, as for pictures that people see; otherwise it looks at 2 × 2 pixels of any picture."""

    def __call__(self, x: Tensor, drawn: Drawn, size: Size) -> Tensor:
        return F.interpolate(x, size=size, mode="bilinear", antialias=self.antialias)
