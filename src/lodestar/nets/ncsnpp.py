"""NCSN++ as a generator of denoising diffusion GANs (Song et al. 2021; Xiao et al. 2022, appendix C).

A U-Net whose norms are told the conditions' embedding, and whose blocks the time. Pictures are resampled by a binomial filter,
in residual blocks; on the way down the picture itself, made smaller, is added at every resolution.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels
from lodestar.nets.attention import Attention, Gather
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Kept, Part
from lodestar.nets.dropout import Dropout
from lodestar.nets.layers import Conv2d, GroupNorm, Linear, lower, zero
from lodestar.nets.unet import TimeEmbedding

_EPS = 1e-6
Direction = Literal["up", "down"]


class NcsnppConfig(DenoiserNetworkConfig):
    """An NCSN++."""

    silent: ClassVar[tuple[str, ...]] = ("bounded",)

    kind: Literal["ncsnpp"] = "ncsnpp"
    width: Annotated[int, Field(ge=4, le=16_384, multiple_of=4)] = 64
    """Channels at multiplier 1; also the width of the sinusoidal time embedding."""
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(1, 2, 2), min_length=1, max_length=12)
    """Width of each resolution, from the finest, as a factor of `width`."""
    blocks: int = Field(default=2, ge=1, le=100)
    """Residual blocks of each resolution on the way down."""
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(), max_length=12)
    """Downsampling factors of the resolutions with attention, of one head; in the middle there always is one."""
    told_width: Channels = 256
    """Width of the conditions' embedding."""
    dropout: float = Field(default=0.0, ge=0, lt=1)
    bounded: bool = True
    """Predict values in [−1, 1], by a hyperbolic tangent."""

    @property
    def emb_width(self) -> int:
        return self.told_width

    @property
    def divisor(self) -> int:
        return 1 << (len(self.multipliers) - 1)

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution, from the finest."""
        return tuple(multiplier * self.width for multiplier in self.multipliers)

    @property
    def summary(self) -> str:
        return f"channels {', '.join(map(str, self.widths))}; blocks {self.blocks}"

    def build(self) -> Ncsnpp:
        return Ncsnpp(self)


class Told(NamedTuple):
    """Vectors [B, …] of the time and of the conditions, each after its SiLU, for all blocks."""

    time: Tensor
    emb: Tensor


class AdaptiveNorm(nn.Module):
    """A group norm with SiLU, scaled and shifted by the embedding."""

    def __init__(self, channels: int, told: int) -> None:
        super().__init__()
        self.norm, self.told = GroupNorm(channels, _groups(channels), _EPS), Linear(told, 2 * channels)

    def forward(self, x: Tensor, emb: Tensor) -> Tensor:
        scale, shift = self.told(emb)[:, :, None, None].chunk(2, dim=1)
        out: Tensor = self.norm(x, scale, shift, silu=True)
        return out


class Block(nn.Module):
    """A residual block of two convolutions after adaptive norms, with the time between them, resampling or not."""

    def __init__(self, config: NcsnppConfig, channels: int, out_channels: int, direction: Direction | None = None) -> None:
        super().__init__()
        self.direction = direction
        self.norm1 = AdaptiveNorm(channels, config.told_width)
        self.conv1 = Conv2d(channels, out_channels, 3, padding=1)
        self.time = Linear(4 * config.width, out_channels)
        self.norm2 = AdaptiveNorm(out_channels, config.told_width)
        self.dropout = Dropout(config.dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        zero(self.conv2)
        same = channels == out_channels and direction is None
        self.skip = nn.Identity() if same else Conv2d(channels, out_channels, 1)

    def forward(self, x: Tensor, told: Told) -> Tensor:
        h = self.norm1(x, told.emb)
        if self.direction is not None:
            resample = enlarged if self.direction == "up" else halved
            h, x = resample(h), resample(x)
        h = self.conv1(h) + self.time(told.time)[:, :, None, None]
        h = self.conv2(self.dropout(self.norm2(h, told.emb)))
        out: Tensor = (self.skip(x) + h) * math.sqrt(0.5)
        return out


class Stage(nn.Module):
    """A block, with attention after it where asked."""

    def __init__(self, block: Block, attends: bool = False) -> None:
        super().__init__()
        channels = block.conv2.out_channels
        self.block = block
        self.attention = (
            Attention(channels, 1, layout="qkv_first", groups=_groups(channels), eps=_EPS, rescale=True) if attends else None
        )

    def forward(self, h: Tensor, told: Told) -> Tensor:
        h = self.block(h, told)
        return h if self.attention is None else self.attention(h)


class Halving(Conv2d):
    """A filter, then a 3×3 convolution at every other place."""

    def __init__(self, channels: int, out_channels: int) -> None:
        super().__init__(channels, out_channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.conv2d(x, _filter(x), padding=2, groups=x.shape[1]))


class Ncsnpp(DenoiserNetwork):
    """See the module's docstring."""

    def __init__(self, config: NcsnppConfig) -> None:
        super().__init__()
        self.config, widths = config, config.widths
        self.time = TimeEmbedding(config.width, 4 * config.width, closed=True)
        self.stem = Conv2d(config.in_channels, config.width, 3, padding=1)
        self.down, self.smaller, self.up = nn.ModuleList(), nn.ModuleList(), nn.ModuleList()
        channels, picture, handed = config.width, config.in_channels, [config.width]
        for level, width in enumerate(widths):
            for _ in range(config.blocks):
                self.down.append(self._stage(level, channels, width))
                channels = width
                handed.append(channels)
            if level + 1 < len(widths):
                self.down.append(Stage(Block(config, channels, channels, "down")))
                self.smaller.append(Halving(picture, channels))
                picture = channels
                handed.append(channels)
        self.middle = nn.ModuleList(Stage(Block(config, channels, channels), attends) for attends in (True, False))
        for level in reversed(range(len(widths))):
            for number in range(config.blocks + 1):
                last = number == config.blocks
                self.up.append(self._stage(level if last else None, channels + handed.pop(), widths[level]))
                channels = widths[level]
            if level > 0:
                self.up.append(Stage(Block(config, channels, channels, "up")))
        self.norm = GroupNorm(channels, _groups(channels), _EPS)
        self.head = zero(Conv2d(channels, config.out_channels, 3, padding=1))

    def _stage(self, level: int | None, channels: int, out_channels: int) -> Stage:
        """A block, with attention at the resolutions that have one."""
        attends = level is not None and 2**level in self.config.attention
        return Stage(Block(self.config, channels, out_channels), attends)

    def forward(
        self, x: Tensor, time: Tensor, emb: Tensor | None = None, dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None, kept: Kept | None = None, tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:  # fmt: skip
        """Predict from a noisy picture; see `DenoiserNetwork.forward`."""
        assert not gather and kept is None and tokens is None and mask is None, "it takes no text, and its attention stays"
        emb = x.new_zeros(len(x), self.config.told_width) if emb is None else emb
        h = self.stem(x.to(dtype=dtype or x.dtype, memory_format=torch.channels_last))
        told = Told(F.silu(self.time(time)).to(h.dtype), F.silu(emb).to(h.dtype))
        picture, smaller, handed = x.to(h.dtype), iter(self.smaller), [h]
        for stage in self._stages(self.down):
            h = stage(h, told)
            if stage.block.direction == "down":
                picture = (next(smaller)(picture) + h) * math.sqrt(0.5)
                h = picture
            handed.append(h)
        for stage in (*self._stages(self.middle), *self._stages(self.up)):
            takes = stage.block.conv1.in_channels > h.shape[1]
            h = stage(torch.cat([h, handed.pop()], dim=1) if takes else h, told)
        out: Tensor = self.head(self.norm(h, silu=True, wide=True))
        return out.tanh() if self.config.bounded else out

    def _stages(self, stages: nn.ModuleList) -> Iterator[Stage]:
        for stage in stages:
            assert isinstance(stage, Stage)
            yield stage

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.down, self.smaller, self.middle, self.up

    def lower(self, dtype: torch.dtype) -> None:
        for part in (self.stem, *self.hidden):
            lower(part, dtype)


def _groups(channels: int) -> int:
    return min(channels // 4, 32)


def _filter(x: Tensor) -> Tensor:
    """The binomial filter of 4×4 places for each channel of x [B, C, H, W]: [C, 1, 4, 4], its sum 1."""
    # 1, 3, 3, 1, computed where x is: a list would be copied to the device in every step.
    row = (4 - 2 * (torch.arange(4, dtype=x.dtype, device=x.device) - 1.5).abs()) / 8
    return (row[:, None] * row).expand(x.shape[1], 1, 4, 4)


def halved(x: Tensor) -> Tensor:
    """Half of height and width, filtered."""
    return F.conv2d(x, _filter(x), stride=2, padding=1, groups=x.shape[1])


def enlarged(x: Tensor) -> Tensor:
    """Twice the height and width, filtered."""
    return F.conv_transpose2d(x, 4 * _filter(x), stride=2, padding=1, groups=x.shape[1])
