"""A pyramid of codes: VQ-VAE with one level (van den Oord et al. 2017), VQ-VAE-2 with more (Razavi et al. 2019).

Levels are counted from the finest, the bottom. Each is half as large as the one below; the bottom is a quarter of the picture.
A level is encoded together with what the level above decodes to, and each decoder sees all levels from its own up. Of two levels
this is the network of rosinality/vq-vae-2-pytorch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels
from lodestar.nets.codebook import Codebook, Coded
from lodestar.nets.coded import CodedConfig, CodedNetwork
from lodestar.nets.layers import Conv2d, ConvTranspose2d


class PyramidConfig(CodedConfig):
    """A pyramid of codes."""

    kind: Literal["pyramid"] = "pyramid"
    width: Annotated[int, Field(ge=2, le=16_384)] = 128
    """Channels of encoders and decoders; half as many at the resolution in between."""
    blocks: int = Field(default=2, ge=0, le=100)
    """Residual blocks of each encoder and decoder."""
    hidden: Channels = 32
    """Channels within a residual block."""

    @property
    def divisor(self) -> int:
        return 4 << (self.levels - 1)

    @property
    def summary(self) -> str:
        return (
            f"{self.levels} level{'s' * (self.levels > 1)} of {self.book.codes:,} codes of {self.book.channels} channels; "
            f"width {self.width}, blocks {self.blocks}"
        )

    def build(self) -> Pyramid:
        return Pyramid(self)


class Residual(nn.Module):
    """A residual block of two convolutions, the second 1×1, each after a ReLU."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.conv2 = Conv2d(channels, hidden, 3, padding=1), Conv2d(hidden, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.conv2(self.conv1(x.relu()).relu())
        return out


def _encoder(config: PyramidConfig, channels: int, factor: int) -> nn.Sequential:
    """From `channels` to the width, with height and width divided by a factor of 2 or 4."""
    narrow, width = config.width // 2, config.width
    halvings: list[nn.Module] = [Conv2d(channels, narrow, 4, stride=2, padding=1), nn.ReLU()]
    if factor == 4:
        halvings += [Conv2d(narrow, width, 4, stride=2, padding=1), nn.ReLU()]
    last = Conv2d(width if factor == 4 else narrow, width, 3, padding=1)
    return nn.Sequential(*halvings, last, *_residuals(config), nn.ReLU())


def _decoder(config: PyramidConfig, channels: int, out_channels: int, factor: int) -> nn.Sequential:
    """From `channels` to `out_channels`, with height and width multiplied by a factor of 2 or 4."""
    first, narrow = Conv2d(channels, config.width, 3, padding=1), config.width // 2
    doublings: list[nn.Module] = [ConvTranspose2d(narrow if factor == 4 else config.width, out_channels, 4, stride=2, padding=1)]
    if factor == 4:
        doublings = [ConvTranspose2d(config.width, narrow, 4, stride=2, padding=1), nn.ReLU(), *doublings]
    return nn.Sequential(first, *_residuals(config), nn.ReLU(), *doublings)


def _residuals(config: PyramidConfig) -> list[nn.Module]:
    return [Residual(config.width, config.hidden) for _ in range(config.blocks)]


class Pyramid(CodedNetwork):
    """See the module's docstring."""

    def __init__(self, config: PyramidConfig) -> None:
        super().__init__()
        self.config = config
        width, channels, below, levels = config.width, config.book.channels, config.in_channels, range(config.levels)
        factors = [2 if level else 4 for level in levels]
        # A level sees, of all levels above it, their codes in one map, and what they decode to.
        above = [channels if level + 1 in levels else 0 for level in levels]
        self.encoders = nn.ModuleList(_encoder(config, width if level else below, factors[level]) for level in levels)
        self.before = nn.ModuleList(Conv2d(width + above[level], channels, 1) for level in levels)
        self.books = nn.ModuleList(config.book.build() for _ in levels)
        self.decoders = nn.ModuleList(
            _decoder(config, channels + above[level], channels if level else below, factors[level]) for level in levels
        )
        self.up = nn.ModuleList(
            ConvTranspose2d(channels + above[level + 1], channels, 4, stride=2, padding=1) for level in levels[:-1]
        )

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.encoders, self.before, self.decoders, self.up)

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> list[tuple[Coded, Tensor]]:
        dtype, maps = dtype or x.dtype, []
        h = x.to(dtype=dtype, memory_format=torch.channels_last)
        for encoder in self.encoders:
            h = encoder(h)
            maps.append(h)
        found: list[tuple[Coded, Tensor]] = []
        seen: Tensor | None = None
        for level in reversed(range(self.config.levels)):
            h = maps[level]
            if found:
                assert seen is not None
                h = torch.cat([self.decoders[level + 1](seen), h], dim=1)
            z = self.before[level](h).float()
            coded: Coded = self.books[level](z, dtype)
            found.append((coded, z))
            seen = self._seen(level, coded.values.to(dtype), seen)
        return found[::-1]

    def _seen(self, level: int, values: Tensor, above: Tensor | None) -> Tensor:
        """Input of a level's decoder: the codes of the levels above in one map, and its own values."""
        return values if above is None else torch.cat([self.up[level](above), values], dim=1)

    def decode(self, values: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        seen: Tensor | None = None
        for level in reversed(range(self.config.levels)):
            seen = self._seen(
                level, values[level].to(dtype=dtype or values[level].dtype, memory_format=torch.channels_last), seen
            )
        out: Tensor = self.decoders[0](seen).float()
        return out

    def book(self, level: int) -> Codebook:
        book = self.books[level]
        assert isinstance(book, Codebook)
        return book

    def lower(self, dtype: torch.dtype) -> None:
        for part in self.hidden:
            part.to(dtype)
