"""DALL·E's discrete VAE (Ramesh et al. 2021, appendix A.1): the encoder tells a logit for each code, and the likeliest is taken.

It is read from its published files; its training, by relaxation of the codes, is not here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.config import Channels
from lodestar.nets.codebook import Codebook, Coded
from lodestar.nets.coded import CodedConfig, CodedNetwork
from lodestar.nets.layers import Conv2d, lower, upsample
from lodestar.nets.unet import Depth

_WIDTHS = (1, 2, 4, 8)
"""Widths of the resolutions, from the finest, as factors of the width."""
_EDGE = 0.1
"""Brightness in [0, 1] is squeezed into [0.1, 0.9], within the range of the logit-Laplace distribution."""


class DvaeConfig(CodedConfig):
    """A discrete VAE with one level of codes."""

    learns: ClassVar[bool] = False

    kind: Literal["dvae"] = "dvae"
    levels: Literal[1] = 1
    width: Channels = 256
    """Channels at the finest resolution; the coarsest has 8 times as many."""
    blocks: Depth = 2
    """Residual blocks of each resolution."""

    @property
    def divisor(self) -> int:
        return 1 << (len(_WIDTHS) - 1)

    @property
    def summary(self) -> str:
        return f"{self.book.codes:,} codes; width {self.width}, blocks {self.blocks}"

    def build(self) -> Dvae:
        return Dvae(self)


class Block(nn.Module):
    """A residual block of four convolutions, each after a ReLU, scaled by the network's number of blocks."""

    def __init__(self, channels: int, out_channels: int, kernels: Sequence[int], gain: float) -> None:
        super().__init__()
        inner, self.gain = max(out_channels // 4, 1), gain
        widths = (channels, inner, inner, inner, out_channels)
        self.convs = nn.ModuleList(
            Conv2d(widths[place], widths[place + 1], kernel, padding=kernel // 2) for place, kernel in enumerate(kernels)
        )
        self.skip = nn.Identity() if channels == out_channels else Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        for conv in self.convs:
            h = conv(h.relu())
        out: Tensor = self.skip(x) + self.gain * h
        return out


def _groups(config: DvaeConfig, channels: int, factors: Sequence[int], kernels: Sequence[int]) -> nn.ModuleList:
    """The blocks of each resolution, from `channels` on."""
    gain, groups = 1 / max(len(_WIDTHS) * config.blocks, 1) ** 2, nn.ModuleList()
    for factor in factors:
        blocks = []
        for _ in range(config.blocks):
            blocks.append(Block(channels, factor * config.width, kernels, gain))
            channels = factor * config.width
        groups.append(nn.Sequential(*blocks))
    return groups


class Dvae(CodedNetwork):
    """See the module's docstring."""

    def __init__(self, config: DvaeConfig) -> None:
        super().__init__()
        self.config = config
        coarsest, channels = _WIDTHS[-1] * config.width, config.in_channels
        self.stem = Conv2d(channels, config.width, 7, padding=3)
        self.down = _groups(config, config.width, _WIDTHS, (3, 3, 3, 1))
        self.head = Conv2d(coarsest, config.book.codes, 1)
        self.codebook = config.book.build()
        self.up = _groups(config, config.book.channels, _WIDTHS[::-1], (1, 3, 3, 3))
        # Location and scale of the logit-Laplace distribution.
        self.out = Conv2d(config.width, 2 * channels, 1)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.down, self.up)

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> list[tuple[Coded, Tensor]]:
        """See `CodedNetwork.encode`; the vectors are those of the codes."""
        inside = (1 - 2 * _EDGE) * (x + 1) / 2 + _EDGE
        h = self.stem(inside.to(dtype=dtype or x.dtype, memory_format=torch.channels_last))
        for number, group in enumerate(self.down):
            h = group(h if number == 0 else F.max_pool2d(h, 2))
        numbers = self.head(h.relu().to(x.dtype)).argmax(dim=1)
        values, none = self.codebook.look_up(numbers), x.new_zeros(len(x))
        return [(Coded(values, numbers, none, none), values)]

    def decode(self, values: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        h = values[0].to(dtype=dtype or values[0].dtype, memory_format=torch.channels_last)
        for number, group in enumerate(self.up):
            h = group(h if number == 0 else upsample(h))
        told = self.out(h.relu().to(values[0].dtype))[:, : self.config.in_channels]
        return (2 * (torch.sigmoid(told) - _EDGE) / (1 - 2 * _EDGE) - 1).clamp(-1, 1)

    def book(self, level: int) -> Codebook:
        return self.codebook

    def lower(self, dtype: torch.dtype) -> None:
        for part in (self.stem, *self.hidden):
            lower(part, dtype)
