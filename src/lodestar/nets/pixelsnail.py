"""PixelSNAIL: causal convolutions and attention over a map of codes (Chen et al. 2018), in rosinality/vq-vae-2-pytorch's layout.

Every layer at a place sees earlier places alone, and attention those strictly before it.
"""

from __future__ import annotations

from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Problem
from lodestar.nets.causal import Causal, Gated, Normed, Place
from lodestar.nets.maps import Depth, Kernel, MapConfig, MapNetwork, Walk

HEADS = 8
"""Heads of every attention, as published."""


class PixelSnailConfig(MapConfig):
    """A PixelSNAIL."""

    kind: Literal["pixelsnail"] = "pixelsnail"
    kernel: Kernel = 5
    """Height and width of the causal convolutions, odd."""
    blocks: Depth = 2
    depth: Depth = 2
    """Residual blocks of each block."""
    hidden: Channels = 32
    """Channels within a residual block."""
    attention: bool = True
    dropout: float = Field(default=0.1, ge=0, lt=1)
    out_blocks: Depth = 0
    """Residual blocks after the last block."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kernel < 3 or not self.kernel % 2:
            raise Problem(f"kernel is {self.kernel}: it is odd, and 3 at least")
        if self.attention and (self.width // 2) % HEADS:
            raise Problem(f"width is {self.width}: half of it is divided among {HEADS} heads of attention")
        return self

    def build(self) -> PixelSnail:
        return PixelSnail(self)


class CausalAttention(nn.Module):
    """Attention of every place to those before it; the first gathers nothing."""

    def __init__(self, of_query: int, of_key: int, channels: int) -> None:
        super().__init__()
        self.query, self.key, self.value = (Normed(channels, each) for each in (of_query, of_key, of_key))

    def forward(self, query: Tensor, key: Tensor, at: Place | None = None) -> Tensor:
        """[B, C, H, W] each, to [B, channels, H, W]; at a place [B, C] each, to [B, channels]."""
        if at is not None:
            return self._gathered(query, key, at)
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

    def _gathered(self, query: Tensor, key: Tensor, at: Place) -> Tensor:
        """Values [B, channels] of the places before."""
        q, k, v = (
            layer(each, at).view(len(each), HEADS, -1)
            for layer, each in ((self.query, query), (self.key, key), (self.value, key))
        )
        keys, values = at.past(self, k, v)
        if at.number == 0:
            return torch.zeros_like(v).flatten(1)
        return F.scaled_dot_product_attention(q[:, :, None], keys, values).flatten(1)


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

    def forward(self, x: Tensor, places: Tensor, told: Tensor | None, at: Place | None = None) -> Tensor:
        h = x
        for block in self.blocks:
            h = block(h, told=told, at=at)
        if not isinstance(self.out, Gated):
            mixed: Tensor = self.out(torch.cat([h, places], dim=1), at)
            return mixed
        key, query = self.key(torch.cat([x, h, places], dim=1), at=at), self.query(torch.cat([h, places], dim=1), at=at)
        out: Tensor = self.out(h, self.attention(query, key, at), at=at)
        return out


class PixelSnail(MapNetwork):
    """See the module's docstring."""

    config: PixelSnailConfig

    def __init__(self, config: PixelSnailConfig) -> None:
        super().__init__()
        self.config = config
        width, kernel = config.width, config.kernel
        self.rows = Causal(config.codes, width, (kernel // 2, kernel), "up")
        self.columns = Causal(config.codes, width, ((kernel + 1) // 2, kernel // 2), "left")
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.blocks))
        self.told = config.telling()
        self.out_blocks = nn.ModuleList(Gated(width, config.hidden, 1) for _ in range(config.out_blocks))
        self.head = Normed(config.codes, width, 1, 1)

    @property
    def places(self) -> Tensor:
        """Row and column of each place, in [−0.5, 0.5): float32 [1, 2, H, W]."""
        sides = (torch.arange(side, device=self.head.length.device) / side - 0.5 for side in self.config.size)
        return torch.stack(torch.meshgrid(*sides, indexing="ij"))[None]

    def forward(
        self, codes: Tensor, told: Tensor | None = None, tokens: Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        x, height = self.spread(codes, dtype), codes.shape[1]
        # Shifted by one place, so that no place sees itself.
        h = F.pad(self.rows(x), (0, 0, 1, 0))[:, :, :height] + F.pad(self.columns(x), (1, 0))[..., :-1]
        places = self.places[:, :, :height].to(dtype).expand(len(x), -1, -1, -1)
        for block in self.blocks:
            h = block(h, places, None if told is None else told[:, :, :height].to(dtype))
        for block in self.out_blocks:
            h = block(h)
        logits: Tensor = self.head(F.elu(h)).float()
        return logits

    def walk(self, count: int, told: Tensor | None = None, tokens: Tensor | None = None) -> Walk:
        kernel = self.config.kernel
        map_of_places = self.places
        at = Place(count, self.config.size, self.config.codes, map_of_places.device, margin=kernel)
        for _ in at:
            # The same windows as above: of `rows` the last row is the one before, of `columns` the last column.
            h = at.of_codes(self.columns, (kernel + 1) // 2 - 1, kernel // 2)
            if at.row == 0:  # where `rows` are all shifted in, and so are zero without their bias too
                h = h if at.column else torch.zeros_like(h)
            else:
                above = at.of_codes(self.rows, kernel // 2, kernel // 2)
                h = above + h if at.column else above
            places = at.pick(map_of_places).expand(count, -1)
            for block in self.blocks:
                h = block(h, places, told, at)
            for block in self.out_blocks:
                h = block(h, at=at)
            at.choose((yield self.head(F.elu(h), at).float()))
