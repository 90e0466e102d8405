"""Augmentation of all pictures that a discriminator sees, real and made, through which gradients flow.

Differentiable augmentation (Zhao et al. 2020, "Differentiable Augmentation for Data-Efficient GAN Training").
"""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config
from lodestar.tasks.rng import Rng

_Share = Annotated[float, Field(ge=0, le=1)]


class DiffAugment(Config):
    """Random changes of pictures; 0 is none. The paper's are colour 1, translation 0.125 and cutout 0.5."""

    colour: _Share = 0.0
    """Strength of changes of brightness, saturation and contrast."""
    translation: _Share = 0.0
    """Largest shift, as a share of the side; grey comes in."""
    cutout: _Share = 0.0
    """Side of a grey square at a random place, as a share of the picture's."""

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Changed pictures [B, C, H, W]."""
        if self == DiffAugment():
            return x
        x = x.contiguous(memory_format=torch.channels_last)  # sums depend on the layout, by rounding
        drawn = rng.draw(lambda count, make: torch.rand((count, 7), generator=make, device=make.device))
        brightness, saturation, contrast, *places = drawn[..., None, None, None].unbind(1)
        if self.colour:
            x = x + self.colour * (brightness - 0.5)
            grey = x.mean(dim=1, keepdim=True)
            x = grey + (1 + self.colour * (2 * saturation - 1)) * (x - grey)
            mean = x.mean(dim=(1, 2, 3), keepdim=True)
            x = mean + (1 + self.colour * (contrast - 0.5)) * (x - mean)
        if self.translation:
            down, across = (
                _shift(each.flatten(), side, self.translation) for each, side in zip(places[:2], x.shape[2:], strict=True)
            )
            x = down[:, None] @ x @ across[:, None].mT
        if self.cutout:
            inside = [_near(each.flatten(), side, self.cutout * side) for each, side in zip(places[2:], x.shape[2:], strict=True)]
            x = x * (1 - inside[0][:, None, :, None] * inside[1][:, None, None, :])
        return x


def _near(draw: Tensor, side: int, width: float) -> Tensor:
    """The places [B, side] within half a width of a random one: 1, others 0."""
    place = torch.arange(side, device=draw.device) + 0.5
    return ((place - draw[:, None] * side).abs() * 2 < width).float()


def _shift(draw: Tensor, side: int, share: float) -> Tensor:
    """Matrices [B, side, side] that shift columns by a random whole number up to a share of the side."""
    most = round(share * side)
    by = (draw * (2 * most + 1)).long() - most
    place = torch.arange(side, device=draw.device)
    return (place[:, None] - place == by[:, None, None]).float()
