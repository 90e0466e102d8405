"""Transformer blocks of CLIP's towers: a norm before attention, a norm before the perceptron, residual sums."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets.attention import Gather, Masked, Past, attend, attend_after
from lodestar.nets.layers import Linear, normal

Activation = Literal["quick_gelu", "gelu"]
"""Activation of the perceptrons: x·σ(1.702·x), as in OpenAI's weights, or GELU itself."""


class LayerNorm(nn.LayerNorm):
    """Layer normalisation; its statistics are in float32, whatever its input is in."""

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.normalized_shape, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)


def earlier(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """A `Gather` of every place from itself and those before it."""
    if not (q.requires_grad and q.dtype == torch.bfloat16 and not q.is_cuda):
        return F.scaled_dot_product_attention(q, k, v, is_causal=True)
    # As in `attend`: on CPUs the fused kernel's backward pass is the slower one in bfloat16.
    later = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).triu(1)
    scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
    gathered: Tensor = scores.masked_fill(later, -torch.inf).softmax(dim=-1) @ v
    return gathered


class Block(nn.Module):
    """A residual block of attention and one of a perceptron of four times the width, on [B, N, width]."""

    def __init__(self, width: int, heads: int, *, activation: Activation, key_bias: bool) -> None:
        super().__init__()
        self.heads, self.activation, self.key_bias = heads, activation, key_bias
        self.norm1, self.norm2 = LayerNorm(width), LayerNorm(width)
        self.qkv = Linear(width, 3 * width, bias=key_bias)
        # Softmax ignores the keys' biases, so some networks have none.
        self.qv_bias = None if key_bias else nn.Parameter(torch.zeros(2 * width))
        self.out = Linear(width, width)
        self.up, self.down = Linear(width, 4 * width), Linear(4 * width, width)

    def forward(
        self, x: Tensor, gather: Gather | None = None, past: Past | None = None, first: bool = False, last: bool = False
    ) -> Tensor:
        """gather: replacement of attention to all places, such as `earlier`. past: the places before, for a gather that is
        `Masked`. first, last: the first place alone, or the last one of a `Masked` gather, [B, 1, width]."""
        qkv = self.qkv(self.norm1(x))
        if self.qv_bias is not None:
            of_q, of_v = self.qv_bias.to(x.dtype).chunk(2)
            qkv = qkv + torch.cat([of_q, torch.zeros_like(of_q), of_v])
        x = x[:, :1] if first else x[:, -1:] if last else x
        if past is None and not last:
            x = x + self.out(attend(qkv, self.heads, "qkv_first", gather, first=first))
        else:
            assert isinstance(gather, Masked) and not first
            x = x + self.out(attend_after(qkv, self.heads, gather, past, last))
        h = self.up(self.norm2(x))
        h = F.gelu(h) if self.activation == "gelu" else h * torch.sigmoid(1.702 * h)
        out: Tensor = x + self.down(h)
        return out


def blocks(width: int, layers: int, heads: int, activation: Activation, key_bias: bool) -> nn.ModuleList:
    """A tower of blocks, initialised as CLIP's: deviations fall with width and depth."""
    tower = nn.ModuleList([Block(width, heads, activation=activation, key_bias=key_bias) for _ in range(layers)])
    for block in tower:
        assert isinstance(block, Block)
        for layer, deviation in (
            (block.qkv, width**-0.5),
            (block.out, (2 * width * layers) ** -0.5),
            (block.up, (2 * width) ** -0.5),
            (block.down, (2 * width * layers) ** -0.5),
        ):
            nn.init.normal_(layer.weight, std=deviation)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return tower


def learned(*shape: int, deviation: float) -> nn.Parameter:
    """A parameter of normal random numbers."""
    return nn.Parameter(normal(*shape, divisor=1 / deviation))
