"""A smaller picture as a condition: enlarged to the size of the one that is made, and laid beside it as further planes.

ADM, section 5.1 and Improved DDPM, appendix C: a diffusion model of large pictures that sees the small one all along.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def beside(x: Tensor, planes: Tensor) -> Tensor:
    """What the network sees [B, C + P, H, W]: x [B, C, H, W], then planes [B, P, h, w], resized bilinearly as published."""
    if planes.shape[-2:] != x.shape[-2:]:
        planes = F.interpolate(planes, size=x.shape[-2:], mode="bilinear")
    return torch.cat([x, planes], dim=1)


def shrink(x: Tensor, size: tuple[int, int]) -> Tensor:
    """The small picture [B, C, h, w] of a large one [B, C, H, W], as published upsamplers are trained: means over areas."""
    return F.interpolate(x, size=size, mode="area")
