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
"""q [B, heads, N, d], and k and v [B, heads, M, d], to what every query gathers [B, heads, N, d].

The last N keys are the places of the queries; those before them are of a text.
"""


def attend(
    qkv: Tensor, heads: int, layout: Layout, gather: Gather | None = None, text: Tensor | None = None, first: bool = False
) -> Tensor:
    """Multi-head attention of [B, N, 3·C] with itself, giving [B, N, C]; `gather` takes the place of softmax(q·kᵀ/√d)·v.

    text: keys and values [B, L, 2·C] of a text, which stand before those of the places. first: gather for the first place
    alone, [B, 1, C].
    """
    places = qkv.shape[1]
    if text is not None:
        qkv = torch.cat([_without_queries(text, heads, layout), qkv], dim=1)
    split = partial(_split, heads=heads, layout=layout, queries=slice(1) if first else slice(-places, None))
    mask = gather.mask if isinstance(gather, Masked) and text is not None and gather.covers(text.shape[1]) else None
    if (gather is None or mask is not None) and fused.attends(qkv):
        return fused.attention(qkv, split, mask)
    return (gather or _usual)(*split(qkv)).transpose(1, 2).flatten(2)


def _split(qkv: Tensor, heads: int, layout: Layout, queries: slice) -> tuple[Tensor, Tensor, Tensor]:
    """The views q [B, heads, queries, d] of some rows, and k and v [B, heads, N, d] of all, of [B, N, 3·C]."""
    q, k, v = _heads(qkv, heads, layout, 3).unbind(0)
    return q[:, :, queries], k, v


def _without_queries(text: Tensor, heads: int, layout: Layout) -> Tensor:
    """Keys and values [B, L, 2·C] as rows [B, L, 3·C], their queries zero."""
    batch, length, width = text.shape
    shape = (2, heads) if layout == "qkv_first" else (heads, 2)
    apart = text.view(batch, length, *shape, width // 2 // heads)
    return F.pad(apart, (0, 0, 0, 0, 1, 0) if layout == "qkv_first" else (0, 0, 1, 0)).view(batch, length, -1)


def _heads(projected: Tensor, heads: int, layout: Layout, parts: int) -> Tensor:
    """A projection [B, N, parts·C] as a view [parts, B, heads, N, head channels]."""
    batch, places, width = projected.shape
    if layout == "qkv_first":
        return projected.view(batch, places, parts, heads, width // parts // heads).permute(2, 0, 3, 1, 4)
    return projected.view(batch, places, heads, parts, width // parts // heads).permute(3, 0, 2, 1, 4)


def _weights(q: Tensor, k: Tensor, allowed: Tensor | None = None) -> Tensor:
    """softmax(q·kᵀ/√d) [B, heads, N, M], over the allowed keys."""
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ k.transpose(-2, -1)
    return torch.softmax(scores if allowed is None else scores.masked_fill(~allowed, -torch.inf), dim=-1)


def _usual(q: Tensor, k: Tensor, v: Tensor, allowed: Tensor | None = None) -> Tensor:
    # In bfloat16 on CPUs PyTorch's fused kernel has the slower backward pass; in float32 it has the faster one.
    if q.requires_grad and q.dtype == torch.bfloat16 and not q.is_cuda:
        return _weights(q, k, allowed) @ v
    return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed)


def stay(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A `Gather` in which every place attends to itself alone: the identity for a map (perturbed attention)."""
    return v[:, :, -q.shape[2] :]


class Masked:
    """A `Gather` that is ordinary attention to some of the keys: to the counted ones of a text, and if `causal` to earlier ones.

    Every place attends to itself, so that a place without any other has a defined result.
    """

    def __init__(self, mask: Tensor, causal: bool = False) -> None:
        """mask: bool [B, L], True at the first keys that count; all after them do."""
        self.mask, self.causal = mask, causal
        self._added: dict[tuple[int, int, torch.dtype], Tensor] = {}

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return _usual(q, k, v, self.allowed(q.shape[2], k.shape[2]))

    def covers(self, keys: int) -> bool:
        """True if it is about the first so many keys alone, of a text: all after them count for every query."""
        return not self.causal and self.mask.shape[1] == keys

    def allowed(self, queries: int, keys: int) -> Tensor:
        """The pairs that count, bool [B, 1, queries, keys]; the last keys are the queries' places."""
        counted = F.pad(self.mask, (0, keys - self.mask.shape[1]), value=True)[:, None, None]
        own = torch.arange(keys - queries, keys, device=counted.device)[:, None]
        place = torch.arange(keys, device=counted.device)
        return (counted & (place <= own) if self.causal else counted) | (place == own)

    def added(self, queries: int, keys: int, dtype: torch.dtype) -> Tensor:
        """Addends of scores, 0 for the pairs that count and −∞ for others; made once for all blocks of a network."""
        what = (queries, keys, dtype)
        if what not in self._added:
            allowed = self.allowed(queries, keys)
            self._added[what] = torch.zeros(allowed.shape, dtype=dtype, device=allowed.device).masked_fill(~allowed, -torch.inf)
        return self._added[what]


class Past:
    """Keys and values of a sequence's places so far, with room for all places, so that no step copies them."""

    def __init__(self, places: int) -> None:
        self.places, self.count = places, 0
        self.closed = False
        """True if further places see those so far, and do not stay."""
        self._room: Tensor | None = None

    def after(self, pairs: Tensor) -> Tensor:
        """Keys and values [2, B, heads, M + N, d] of the M places so far and of N further ones, given as [2, B, heads, N, d]."""
        if self._room is None:
            *lead, _, width = pairs.shape
            self._room = pairs.new_empty(*lead, self.places, width)
        end = self.count + pairs.shape[3]
        self._room[:, :, :, self.count : end] = pairs
        self.count = self.count if self.closed else end
        return self._room[:, :, :, :end]


def attend_after(qkv: Tensor, heads: int, masked: Masked, past: Past | None = None, last: bool = False) -> Tensor:
    """Multi-head attention of [B, N, 3·C], q, k and v first, with itself and with the places before, giving [B, N, C].

    last: gather for the last place alone, [B, 1, C].
    """
    parts = _heads(qkv, heads, "qkv_first", 3)
    q, pairs = (parts[0, :, :, -1:] if last else parts[0]), parts[1:]
    keys, values = (pairs if past is None else past.after(pairs)).unbind(0)
    scores = (q * (1 / math.sqrt(q.shape[-1]))) @ keys.transpose(-2, -1)
    if q.shape[2] > 1 or masked.mask.shape[1]:  # else a single place, the last one, which sees all
        scores = scores + masked.added(q.shape[2], keys.shape[2], q.dtype)
    return (torch.softmax(scores, dim=-1) @ values).transpose(1, 2).flatten(2)


class Watch:
    """A `Gather` that is ordinary attention and remembers how much each place was attended to. Made anew for every pass."""

    seen: Tensor
    """float32 [B, N], after the pass: what a place receives from all places, mean over the heads; its mean over places is 1."""

    masked: Masked | None = None
    """The mask of the keys, which the network sets where a text has one."""

    def __call__(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = _weights(q, k, None if self.masked is None else self.masked.allowed(q.shape[2], k.shape[2]))
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
        out: Tensor = self.out(attend(self.qkv(places), self.heads, "qkv_first", first=True)[:, 0])
        return out
