"""Self-attention over the places of a picture, and the pooling that attends to one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets import fused
from lodestar.nets.layers import GroupNorm, Linear, normal, zero

Layout = Literal["heads_first", "qkv_first"]
"""Order of q, k and v in one projection: [head, q|k|v, channel] (old, most published weights) or [q|k|v, head, channel]."""


Gather = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k and v [B, heads, N, head channels] to what every place gathers from all of them, of v's shape."""


def attend(qkv: Tensor, heads: int, layout: Layout, gather: Gather | None = None) -> Tensor:
    """Multi-head attention of [B, N, 3·C] with itself, giving [B, N, C]; `gather` takes the place of softmax(q·kᵀ/√d)·v."""
    split = partial(_split, heads=heads, layout=layout)
    if gather is None and fused.attends(qkv):
        return fused.attention(qkv, split)
    if gather is None:
        # In bfloat16 on CPUs PyTorch's fused kernel has the slower backward pass; in float32 it has the faster one.
        plain = qkv.requires_grad and qkv.dtype == torch.bfloat16 and not qkv.is_cuda
        gather = _plain if plain else F.scaled_dot_product_attention
    gathered = gather(*split(qkv))
    return gathered.transpose(1, 2).reshape(*qkv.shape[:2], -1)


def _split(qkv: Tensor, heads: int, layout: Layout) -> tuple[Tensor, Tensor, Tensor]:
    """The views q, k and v [B, heads, N, head channels] of [B, N, 3·C]."""
    batch, places, width = qkv.shape
    if layout == "qkv_first":
        q, k, v = qkv.view(batch, places, 3, heads, width // 3 // heads).permute(2, 0, 3, 1, 4).unbind(0)
    else:
        q, k, v = qkv.view(batch, places, heads, 3, width // 3 // heads).permute(3, 0, 2, 1, 4).unbind(0)
    return q, k, v


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d) [B, heads, N, N]."""
    return torch.softmax((q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1), dim=-1)


def _plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return _weights(q, k) @ v


def stay(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A `Gather` in which every place attends to itself alone: the identity for a map (perturbed attention)."""
    return v


class Watch:
    """A `Gather` that is ordinary attention and remembers how much each place was attended to. Made anew for every pass."""

    seen: Tensor
    """float32 [B, N], after the pass: what a place receives from all places, mean over the heads; its mean over places is 1."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = _weights(q, k)
        self.seen = weights.float().mean(dim=1).sum(dim=1)
        return weights @ v


class Attention(nn.Module):
    """Residual multi-head self-attention over the H·W places of a picture."""

    def __init__(
        self, channels: int, heads: int, *, layout: Layout, groups: int, eps: float = 1e-5, rescale: bool = False
    ) -> None:
        super().__init__()
        self.heads, self.layout, self.rescale = heads, layout, rescale
        self.norm = GroupNorm(channels, groups, eps)
        self.qkv = Linear(channels, 3 * channels)
        self.out = zero(Linear(channels, channels))

    def forward(self, x: Tensor, gather: Gather | None = None) -> Tensor:
        """x [B, C, H, W]; channels-last in memory, so its places are rows without a copy. gather: see `attend`."""
        batch, channels, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        y = self.out(attend(self.qkv(places), self.heads, self.layout, gather))
        y = x + y.view(batch, height, width, channels).permute(0, 3, 1, 2)
        out: Tensor = y * math.sqrt(0.5) if self.rescale else y
        return out


class AttentionPool(nn.Module):
    """CLIP's attention pooling: the mean of the places, put before them, attends to all (always in the qkv_first layout)."""

    def __init__(self, places: int, channels: int, head_channels: int, out_channels: int) -> None:
        super().__init__()
        self.heads = channels // head_channels
        self.position = nn.Parameter(normal(places + 1, channels, divisor=channels**0.5))
        self.qkv = Linear(channels, 3 * channels)
        self.out = Linear(channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] to [B, out_channels]."""
        places = x.flatten(2).transpose(1, 2)
        places = torch.cat([places.mean(dim=1, keepdim=True), places], dim=1) + self.position.to(x.dtype)
        out: Tensor = self.out(attend(self.qkv(places), self.heads, "qkv_first")[:, 0])
        return out
