"""BigGAN-deep's generator (Brock et al. 2019, appendix B), with the batch statistics that it was published with.

It is read from published files: norms take statistics of batches, which are kept for several deviations of the latents.
"""

from __future__ import annotations

import itertools
from typing import Annotated, ClassVar, Literal, NamedTuple

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels, Problem
from lodestar.nets.gan import Classes, GeneratorConfig, GeneratorNetwork, maps, table
from lodestar.nets.layers import Conv2d, Linear, lower, upsample

_COARSEST = 4
"""Height and width of the first maps."""
_NARROWED = 4
"""Factor by which a block's inner convolutions are narrower."""


class BigGanConfig(GeneratorConfig):
    """A BigGAN-deep: two blocks at each resolution, of which the second doubles."""

    learns: ClassVar[bool] = False
    silent: ClassVar[tuple[str, ...]] = ("eps",)

    kind: Literal["biggan_deep"] = "biggan_deep"
    latent: Channels = 128
    classes: Classes = 1000
    size: tuple[Annotated[int, Field(ge=1, le=16_384)], Annotated[int, Field(ge=1, le=16_384)]] = (128, 128)
    bound: float | None = Field(default=2.0, gt=0, le=1_000)
    width: Channels = 128
    multipliers: tuple[Annotated[int, Field(ge=1, le=64)], ...] = Field(default=(1, 2, 4, 8, 16, 16), min_length=2, max_length=12)
    """Width of each resolution, from the pictures' own, as a factor of `width`."""
    attention: Annotated[int, Field(ge=1, le=2**11)] | None = 2
    """Downsampling factor of the resolution with attention; None for none."""
    statistics: int = Field(default=51, ge=2, le=10_000)
    """Number of the latents' deviations, evenly from 0 to 1, with statistics of their own."""
    eps: float = Field(default=1e-4, gt=0, le=1)
    """Constant added to variances."""

    @property
    def divisor(self) -> int:
        return 1 << (len(self.multipliers) - 1)

    def check_size(self, size: tuple[int, int]) -> None:
        side = _COARSEST * self.divisor
        if size != (side, side):
            raise Problem(f"size is {size[0]}×{size[1]}: with {len(self.multipliers)} resolutions it is {side}×{side}")

    @property
    def summary(self) -> str:
        return f"biggan_deep: channels {', '.join(str(factor * self.width) for factor in self.multipliers)}"

    def build(self) -> BigGan:
        return BigGan(self)


class Told(NamedTuple):
    """Latents and classes [B, 2·latent], and the place among the statistics."""

    vector: Tensor
    place: float


class BatchNorm(nn.Module):
    """Normalization by kept statistics, and a ReLU. told: width of the vector by which it scales and shifts; None for its own."""

    means: Tensor
    variances: Tensor

    def __init__(self, config: BigGanConfig, channels: int, told: int | None) -> None:
        super().__init__()
        self.eps = config.eps
        self.register_buffer("means", torch.zeros(config.statistics, channels))
        self.register_buffer("variances", torch.ones(config.statistics, channels))
        self.scale = None if told is None else Linear(told, channels, bias=False)
        self.shift = None if told is None else Linear(told, channels, bias=False)
        self.weight = nn.Parameter(torch.ones(channels)) if told is None else None
        self.bias = nn.Parameter(torch.zeros(channels)) if told is None else None

    def forward(self, x: Tensor, told: Told) -> Tensor:
        low = min(int(told.place), len(self.means) - 2)
        mean, variance = (torch.lerp(each[low], each[low + 1], told.place - low) for each in (self.means, self.variances))
        if self.scale is None or self.shift is None:
            assert self.weight is not None and self.bias is not None
            scale, shift = self.weight[None], self.bias[None]
        else:
            scale, shift = 1 + self.scale(told.vector), self.shift(told.vector)
        factor = scale * (variance + self.eps).rsqrt()
        addend = shift - mean * factor
        return torch.addcmul(addend[:, :, None, None].to(x.dtype), x, factor[:, :, None, None].to(x.dtype)).relu()


class Block(nn.Module):
    """A residual block of four convolutions; what is handed on loses its last channels where there are fewer after."""

    def __init__(self, config: BigGanConfig, channels: int, out_channels: int, doubles: bool) -> None:
        super().__init__()
        inner, told = channels // _NARROWED, 2 * config.latent
        self.out_channels, self.doubles = out_channels, doubles
        self.norms = nn.ModuleList(BatchNorm(config, each, told) for each in (channels, inner, inner, inner))
        self.convs = nn.ModuleList(
            [
                Conv2d(channels, inner, 1), Conv2d(inner, inner, 3, padding=1), Conv2d(inner, inner, 3, padding=1),
                Conv2d(inner, out_channels, 1),
            ]
        )  # fmt: skip

    def forward(self, x: Tensor, told: Told) -> Tensor:
        h = x
        for number, (norm, conv) in enumerate(zip(self.norms, self.convs, strict=True)):
            h = norm(h, told)
            h = conv(upsample(h) if self.doubles and number == 1 else h)
        x = x[:, : self.out_channels]
        return h + (upsample(x) if self.doubles else x)


class Attention(nn.Module):
    """Attention of every place to squares of 2×2 places, each the largest of its values (SAGAN, Zhang et al. 2019)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow, half = channels // 8, channels // 2
        self.query, self.key = (Conv2d(channels, narrow, 1, bias=False) for _ in range(2))
        self.value, self.out = Conv2d(channels, half, 1, bias=False), Conv2d(half, channels, 1, bias=False)
        self.gain = nn.Parameter(torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        seen = self.query(x), F.max_pool2d(self.key(x), 2), F.max_pool2d(self.value(x), 2)
        q, k, v = (each.flatten(2).mT for each in seen)
        found = F.scaled_dot_product_attention(q, k, v, scale=1.0)
        out: Tensor = x + self.gain.to(x.dtype) * self.out(found.mT.unflatten(2, x.shape[2:]))
        return out


class BigGan(GeneratorNetwork):
    """See the module's docstring."""

    def __init__(self, config: BigGanConfig) -> None:
        super().__init__()
        self.config = config
        widths = [factor * config.width for factor in config.multipliers][::-1]
        self.table = table(config.classes, config.latent)
        self.root = Linear(2 * config.latent, _COARSEST**2 * widths[0])
        self.layers = nn.ModuleList()
        for number, (width, after) in enumerate(itertools.pairwise(widths)):
            if config.attention == config.divisor >> number:
                self.layers.append(Attention(width))
            self.layers.append(Block(config, width, width, doubles=False))
            self.layers.append(Block(config, width, after, doubles=True))
        self.norm = BatchNorm(config, widths[-1], None)
        self.head = Conv2d(widths[-1], config.in_channels, 3, padding=1)

    def forward(self, z: Tensor, label: Tensor | None = None, dtype: torch.dtype | None = None, deviation: float = 1.0) -> Tensor:
        assert label is not None, "this generator is told classes"
        vector = torch.cat([z, self.table(label)], dim=1)
        told = Told(vector, min(max(deviation, 0.0), 1.0) * (self.config.statistics - 1))
        h = maps(self.root(vector), (_COARSEST, _COARSEST)).to(dtype or z.dtype)
        for layer in self.layers:
            h = layer(h, told) if isinstance(layer, Block) else layer(h)
        out: Tensor = self.head(self.norm(h.to(z.dtype), told))
        return out.tanh()

    def lower(self, dtype: torch.dtype) -> None:
        for module in self.layers.modules():
            if isinstance(module, Conv2d):
                lower(module, dtype)
