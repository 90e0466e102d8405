"""A smaller picture as a condition, enlarged to the size of the output and concatenated as further planes.

ADM, section 5.1 and Improved DDPM, appendix C: a diffusion model of large pictures conditional on the small one throughout.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.signals import Signals, enlarged
from lodestar.config import Side


def beside(x: Tensor, planes: Tensor) -> Tensor:
    """Input of the network [B, C + P, H, W]: x [B, C, H, W], then planes [B, P, h, w], enlarged."""
    return torch.cat([x, enlarged(planes, x.shape[-2:])], dim=1)


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The small picture [B, C, h, w] of a large one [B, C, H, W], as in published upsamplers' training: means over areas."""
    return F.interpolate(x, size=size, mode="area")


class LowRes(Condition):
    """A picture to be enlarged, provided by an edit, not by an ask."""

    kind: Literal["low_res"] = "low_res"
    size: tuple[Side, Side]
    """Height and width of the small picture."""
    enlarging: Literal["bilinear", "bicubic"] = "bilinear"
    """Enlargement to the size of the output; bicubic is that of a = −0.5 (Karlo's)."""

    @property
    def optional(self) -> bool:
        return False

    def planes(self, channels: int) -> int:
        return channels

    def build(self, width: int) -> LowResEncoder:
        return LowResEncoder()

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        raise AssertionError("pictures are handed over, not asked for")

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        small = shrink(x0, self.size)
        return small if self.enlarging == "bilinear" else self.enlarge(small, x0.shape[2:])

    def enlarge(self, small: Tensor, size: Sequence[int]) -> Tensor:
        """Small pictures [B, C, h, w] enlarged to a height and width."""
        if self.enlarging == "bilinear":
            return enlarged(small, size)
        return F.interpolate(small.clamp(-1, 1), size=tuple(size), mode="bicubic", antialias=True)


class LowResEncoder(Encoder):
    """The small picture as planes, beside x at the network's input."""

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of small pictures, float32 [B, C, h, w] in [−1, 1]."""
        return Signals(planes=given)

    def null(self, count: int) -> Signals:
        raise AssertionError("an upsampler has to have a picture")
