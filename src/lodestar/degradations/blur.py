"""A slight Gaussian blur of the small picture (SR3, Saharia et al. 2021; DALL·E 2's first upsampler)."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.degradations.base import Degradation, Drawn, Size, area
from lodestar.degradations.filters import blurred, gaussian

_WIDEST = 100.0
"""Maximum standard deviation in pixels."""


class Blur(Degradation):
    """Means over areas, blurred by a Gaussian of random width."""

    kind: Literal["blur"] = "blur"
    low: float = Field(default=0.4, gt=0, le=_WIDEST)
    high: float = Field(default=0.6, gt=0, le=_WIDEST)
    """Range of standard deviations in pixels of the small picture."""
    share: float = Field(default=0.5, ge=0, le=1)
    """Share of the pictures that are blurred."""
    kernel: int = Field(default=3, ge=1, le=255)
    """Height and width of the kernel in pixels, an odd number."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low is {self.low:g}, above high {self.high:g}")
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel is {self.kernel}: an odd number has a middle")
        return self

    @property
    def uniforms(self) -> int:
        return 2

    def __call__(self, x: Tensor, drawn: Drawn, size: Size) -> Tensor:
        small = area(x, size)
        sigma = self.low + (self.high - self.low) * drawn.uniform[:, 0]
        soft = blurred(small, gaussian(sigma.square()[:, None].expand(-1, 2), None, self.kernel))
        return torch.where((drawn.uniform[:, 1] < self.share)[:, None, None, None], soft, small)
