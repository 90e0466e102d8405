"""Self-attention over the places of a picture, and the pooling that attends to one of them."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets.layers import GroupNorm, Linear, zero

Layout = Literal["heads_first", "qkv_first"]
"""How one projection holds q, k and v: [head, q|k|v, channel] (old, most published weights) or [q|k|v, head, channel]."""


def attend(qkv: Tensor, heads: int, layout: Layout) -> Tensor:
    """Multi-head attention of [B, N, 3·C] with itself, giving [B, N, C]."""
    batch, places, width = qkv.shape
    head_channels = width // 3 // heads
    if layout == "qkv_first":
        q, k, v = qkv.view(batch, places, 3, heads, head_channels).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q, k, v = qkv.view(batch, places, heads, 3, head_channels).permute(3, 0, 2, 1, 4).unbind(0)
    if qkv.requires_grad and qkv.dtype == torch.bfloat16 and not qkv.is_cuda:
        # In bfloat16 on CPUs with matrix tiles the fused kernel's backward pass is the slower one; in float32 it is the faster.
        weights = torch.softmax((q * (1 / math.sqrt(head_channels))) @ k.transpose(-2, -1), dim=-1)
        y = weights @ v
    else:
        y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(batch, places, width // 3)


class Attention(nn.Module):
    """Residual multi-head self-attention over the H·W places of a picture."""

    def __init__(self, channels: int, heads: int, *, layout: Layout, groups: int, rescale: bool = False) -> None:
        super().__init__()
        self.heads, self.layout, self.rescale = heads, layout, rescale
        self.norm = GroupNorm(channels, groups)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zero(Linear(channels, channels))

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, H, W]; channels-last in memory, so its places are rows without a copy."""
        batch, channels, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        y = self.out(attend(self.qkv(places), self.heads, self.layout))
        y = x + y.view(batch, height, width, channels).permute(0, 3, 1, 2)
        return y * math.sqrt(0.5) if self.rescale else y


class AttentionPool(nn.Module):
    """CLIP's attention pooling: the mean of the places, put before them, attends to all (always in the qkv_first layout)."""

    def __init__(self, places: int, channels: int, head_channels: int, out_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.position = nn.Parameter(torch.randn(places + 1, channels) / channels**0.5)
        self.qkv = Linear(channels, 3 * channels)
        self.out = Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, out_channels]."""
        places = x.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + self.position.to(x.dtype)
        return self.out(attend(self.qkv(places), self.heads, "qkv_first")[:, 0])
