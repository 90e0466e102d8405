"""Self-attention over the places of a picture, and the pooling that attends to one of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets import fused
from lodestar.nets.layers import GroupNorm, Linear, normal, zero

Layout = Literal["heads_first", "qkv_first"]
"""Order of q, k and v in one projection: [head, q|k|v, channel] (old, most published weights) or [q|k|v, head, channel]."""


Gather = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q [B, heads, N, d], and k and v [B, heads, M, d], to what every query gathers [B, heads, N, d].

The last N keys are the places of the queries; those before them are of a text.
"""


def attend(qkv: Tensor, heads: int, layout: Layout, gather: Gather | None = None, text: Tensor | None = None) -> Tensor:
    """Multi-head attention of [B, N, 3·C] with itself, giving [B, N, C]; `gather` takes the place of softmax(q·kᵀ/√d)·v.

    text: keys and values [B, L, 2·C] of a text, which stand before those of the places.
    """
    q, k, v = _heads(qkv, heads, layout, 3)
    if text is not None:
        text_k, text_v = _heads(text, heads, layout, 2)
        k, v = torch.cat([text_k, k], dim=2), torch.cat([text_v, v], dim=2)
    batch, places, width = qkv.shape
    if gather is not None:
        y = gather(q, k, v)
    elif (q.requires_grad or k.requires_grad) and qkv.dtype == torch.bfloat16 and not qkv.is_cuda:
        # In bfloat16 on CPUs with matrix tiles the fused kernel's backward pass is the slower one; in float32 it is the faster.
        y = _weights(q, k) @ v
    elif fused.attends(q):
        return fused.attention(q, k, v)
    else:
        y = F.scaled_dot_product_attention(q, k, v)
    return y.transpose(1, 2).reshape(batch, places, width // 3)


def _heads(projected: Tensor, heads: int, layout: Layout, parts: int) -> tuple[Tensor, ...]:
    """The parts of a projection [B, N, parts·C], as views [B, heads, N, head channels]."""
    batch, places, width = projected.shape
    if layout == "qkv_first":
        return projected.view(batch, places, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4).unbind(0)
    return projected.view(batch, places, heads, parts, width // parts // heads).permute(3, 0, 2, 1, 4).unbind(0)


def _weights(q: Tensor, k: Tensor) -> Tensor:
    """softmax(q·kᵀ/√d) [B, heads, N, M]."""
    return torch.softmax((q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1), dim=-1)


def stay(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A `Gather` in which every place attends to itself alone: the identity for a map (perturbed attention)."""
    return v[:, :, -q.shape[2] :]


class Watch:
    """A `Gather` that is ordinary attention and remembers how much each place was attended to. Made anew for every pass."""

    seen: Tensor
    """float32 [B, N], after the pass: what a place receives from all places, mean over the heads; its mean over places is 1."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = _weights(q, k)
        places = q.shape[2]
        seen = weights[..., -places:].float().mean(dim=1).sum(dim=1)
        self.seen = seen if k.shape[2] == places else seen / seen.mean(dim=1, keepdim=True)
        return weights @ v


class Attention(nn.Module):
    """Residual multi-head self-attention over the H·W places of a picture."""

    def __init__(
        self, channels: int, heads: int, *, layout: Layout, groups: int, eps: float = 1e-5, rescale: bool = False,
        context: int | None = None,
    ) -> None:  # fmt: skip
        """context: width of the states of a text; None for attention that is told none."""
        super().__init__()
        self.heads, self.layout, self.rescale = heads, layout, rescale
        self.norm = GroupNorm(channels, groups, eps)
        self.qkv = Linear(channels, 3 * channels)
        self.text = None if context is None else Linear(context, 2 * channels)
        self.out = zero(Linear(channels, channels))

    def forward(self, x: Tensor, gather: Gather | None = None, tokens: Tensor | None = None) -> Tensor:
        """x [B, C, H, W]; channels-last in memory, so its places are rows without a copy. gather: see `attend`.

        tokens: states of a text [B, L, context].
        """
        batch, channels, height, width = x.shape
        places = self.norm(x).permute(0, 2, 3, 1).reshape(batch, height * width, channels)
        text = None if self.text is None or tokens is None else self.text(tokens)
        y = self.out(attend(self.qkv(places), self.heads, self.layout, gather, text))
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
