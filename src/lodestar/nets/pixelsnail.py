"""PixelSNAIL: causal convolutions and attention over a map of codes (Chen et al. 2018), in rosinality/vq-vae-2-pytorch's layout.

Codes are in raster order. Every layer at a place sees earlier places alone, and attention those strictly before it.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem, Side
from lodestar.nets.codebook import Codes
from lodestar.nets.dropout import Dropout

HEADS = 8
"""Heads of every attention, as published."""
_Depth = Annotated[int, Field(ge=0, le=100)]
_Kernel = Annotated[int, Field(ge=1, le=63)]


class PixelSnailConfig(Config):
    """A PixelSNAIL."""

    kind: Literal["pixelsnail"] = "pixelsnail"
    size: tuple[Side, Side] = (8, 8)
    """Height and width of the map of codes."""
    codes: Codes = 512
    width: Channels = 64
    kernel: _Kernel = 5
    """Height and width of the causal convolutions, odd."""
    blocks: _Depth = 2
    depth: _Depth = 2
    """Residual blocks of each block."""
    hidden: Channels = 32
    """Channels within a residual block."""
    attention: bool = True
    dropout: float = Field(default=0.1, ge=0, lt=1)
    out_blocks: _Depth = 0
    """Residual blocks after the last block."""
    told: Channels | None = None
    """Channels of the features of a map of coarser codes, half as large; None for a network that is told none."""
    told_kernel: _Kernel = 3
    told_blocks: _Depth = 1

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kernel < 3 or not self.kernel % 2 or not self.told_kernel % 2:
            raise Problem(f"kernel is {self.kernel} and told_kernel {self.told_kernel}: both are odd, and kernel 3 at least")
        if self.attention and (self.width // 2) % HEADS:
            raise Problem(f"width is {self.width}: half of it is divided among {HEADS} heads of attention")
        if self.told is not None and any(side % 2 for side in self.size):
            raise Problem(f"size is {self.size[0]}×{self.size[1]}: both are twice those of the coarser codes")
        return self

    def build(self) -> PixelSnail:
        return PixelSnail(self)


class Normed(nn.Module):
    """A convolution or affine map whose weights have a direction and a length (weight norm, Salimans and Kingma 2016)."""

    def __init__(self, *shape: int, bias: bool = True) -> None:
        """shape: of the weight, outputs first."""
        super().__init__()
        bound = math.prod(shape[1:]) ** -0.5
        self.direction = nn.Parameter(torch.empty(shape).uniform_(-bound, bound))
        self.length = nn.Parameter(self.direction.detach().flatten(1).norm(dim=1))
        self.bias = nn.Parameter(torch.zeros(shape[0])) if bias else None

    @property
    def weight(self) -> Tensor:
        """The weight itself."""
        direction = self.shown(self.direction)
        shape = (-1, *(1,) * (direction.ndim - 1))
        factor: Tensor = self.length / direction.flatten(1).norm(dim=1)
        return direction * factor.view(shape)

    def shown(self, direction: Tensor) -> Tensor:
        """The direction, without what a causal kernel must not see."""
        return direction

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype)
        if weight.ndim == 2:
            return F.linear(x, weight, bias)
        return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, weight.shape[3] // 2))


class Causal(Normed):
    """A convolution over [B, C, H, W] that sees earlier rows, and of its own row the places at or before its own."""

    def __init__(self, channels: int, out_channels: int, kernel: tuple[int, int], sees: Literal["up", "left", "before"]) -> None:
        """sees: "up" all of the last rows, "left" of its own row and earlier ones the columns up to its own, "before" the whole
        kernel up to, and without, its own place."""
        super().__init__(out_channels, channels, *kernel)
        height, width = kernel
        self.pad = (width - 1, 0, height - 1, 0) if sees == "left" else (width // 2, width // 2, height - 1, 0)
        self.own = width // 2 if sees == "before" else width
        """Column from which on the last row of the kernel sees nothing."""

    def shown(self, direction: Tensor) -> Tensor:
        if self.own == direction.shape[3]:
            return direction
        mask = torch.ones_like(direction)
        mask[:, :, -1, self.own :] = 0
        return direction * mask

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return F.conv2d(F.pad(x, self.pad), self.weight.to(x.dtype), self.bias.to(x.dtype))


class Gated(nn.Module):
    """A gated residual block on [B, C, H, W]: two convolutions after ELUs, then a gated linear unit."""

    def __init__(
        self, channels: int, hidden: int, kernel: int, *, causal: bool = False, dropout: float = 0.1,
        beside: int = 0, told: int | None = None,
    ) -> None:  # fmt: skip
        """beside: channels of a second input. told: channels of the features of a condition."""
        super().__init__()
        shape = (kernel, kernel)
        if causal:
            self.conv1: Normed = Causal(channels, hidden, shape, "before")
            self.conv2: Normed = Causal(hidden, 2 * channels, shape, "before")
        else:
            self.conv1, self.conv2 = Normed(hidden, channels, *shape), Normed(2 * channels, hidden, *shape)
        self.beside = Normed(hidden, beside, 1, 1) if beside else None
        self.told = None if told is None else Normed(2 * channels, told, 1, 1, bias=False)
        self.dropout = Dropout(dropout)

    def forward(self, x: Tensor, beside: Tensor | None = None, told: Tensor | None = None) -> Tensor:
        h = self.conv1(F.elu(x))
        if self.beside is not None:
            assert beside is not None
            h = h + self.beside(F.elu(beside))
        h = self.conv2(self.dropout(F.elu(h)))
        if self.told is not None:
            assert told is not None
            h = h + self.told(told)
        return x + F.glu(h, dim=1)


class CausalAttention(nn.Module):
    """Attention of every place to those before it; the first gathers nothing."""

    def __init__(self, of_query: int, of_key: int, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (Normed(channels, each) for each in (of_query, of_key, of_key))

    def forward(self, query: Tensor, key: Tensor) -> Tensor:
        """[B, C, H, W] each, to [B, channels, H, W]."""
        batch, _, height, width = key.shape
        rows, seen = (each.flatten(2).transpose(1, 2) for each in (query, key))
        q, k, v = (
            each.view(batch, height * width, HEADS, -1).transpose(1, 2)
            for each in (self.query(rows), self.key(seen), self.value(seen))
        )
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(2, 3)
        later = torch.ones(scores.shape[2:], dtype=torch.bool, device=q.device).triu()
        # Not −inf, of which the first row has nothing else: its weights would be NaN. They are zero, as it sees no place.
        weights = scores.masked_fill(later, torch.finfo(scores.dtype).min).softmax(dim=3) * ~later.all(dim=1, keepdim=True)
        out: Tensor = (weights @ v).transpose(1, 2).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        return out


class Block(nn.Module):
    """Causal residual blocks, then attention, or a 1×1 convolution; both are told the places."""

    def __init__(self, config: PixelSnailConfig) -> None:
        super().__init__()
        width, drop = config.width, config.dropout
        self.blocks = nn.ModuleList(
            Gated(width, config.hidden, config.kernel, causal=True, dropout=drop, told=config.told) for _ in range(config.depth)
        )
        if config.attention:
            self.key, self.query = Gated(2 * width + 2, width, 1, dropout=drop), Gated(width + 2, width, 1, dropout=drop)
            self.attention = CausalAttention(width + 2, 2 * width + 2, width // 2)
            self.out: nn.Module = Gated(width, width, 1, dropout=drop, beside=width // 2)
        else:
            self.out = Normed(width, width + 2, 1, 1)

    def forward(self, x: Tensor, places: Tensor, told: Tensor | None) -> Tensor:
        h = x
        for block in self.blocks:
            h = block(h, told=told)
        if not isinstance(self.out, Gated):
            mixed: Tensor = self.out(torch.cat([h, places], dim=1))
            return mixed
        key, query = self.key(torch.cat([x, h, places], dim=1)), self.query(torch.cat([h, places], dim=1))
        out: Tensor = self.out(h, self.attention(query, key))
        return out


class PixelSnail(nn.Module):
    """Logits of each code of a map, given the codes before it."""

    places: Tensor

    def __init__(self, config: PixelSnailConfig) -> None:
        super().__init__()
        self.config = config
        width, kernel = config.width, config.kernel
        self.rows = Causal(config.codes, width, (kernel // 2, kernel), "up")
        self.columns = Causal(config.codes, width, ((kernel + 1) // 2, kernel // 2), "left")
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.told: nn.Sequential | None = None
        if config.told is not None:
            first = Normed(config.told, config.codes, config.told_kernel, config.told_kernel)
            more = (Gated(config.told, config.told, config.told_kernel) for _ in range(config.told_blocks))
            self.told = nn.Sequential(first, *more)
        self.out_blocks = nn.ModuleList(Gated(width, config.hidden, 1) for _ in range(config.out_blocks))
        self.head = Normed(config.codes, width, 1, 1)
        sides = (torch.arange(side) / side - 0.5 for side in config.size)
        self.register_buffer("places", torch.stack(torch.meshgrid(*sides, indexing="ij"))[None], persistent=False)

    def tell(self, coarser: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Features [B, told, H, W] of coarser codes int64 [B, H/2, W/2]."""
        assert self.told is not None, "this network is told no coarser codes"
        features: Tensor = self.told(self._spread(coarser, dtype))
        return F.interpolate(features, scale_factor=2.0, mode="nearest")

    def forward(self, codes: Tensor, told: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Logits float32 [B, K, h, W] of codes int64 [B, h, W], the first rows of a map or all. told: `tell`'s features."""
        x, height = self._spread(codes, dtype), codes.shape[1]
        # Shifted by one place, so that no place sees itself.
        h = F.pad(self.rows(x), (0, 0, 1, 0))[:, :, :height] + F.pad(self.columns(x), (1, 0))[..., :-1]
        places = self.places[:, :, :height].to(dtype).expand(len(x), -1, -1, -1)
        for block in self.blocks:
            h = block(h, places, None if told is None else told[:, :, :height])
        for block in self.out_blocks:
            h = block(h)
        logits: Tensor = self.head(F.elu(h)).float()
        return logits

    def _spread(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Codes [B, h, w] as one-hot [B, K, h, w]."""
        return F.one_hot(codes, self.config.codes).movedim(-1, 1).to(dtype)
