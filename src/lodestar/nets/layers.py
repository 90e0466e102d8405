"""Layers that compute in the precision of their input.

Parameters stay in whatever type they are kept in (float32 for training); each layer casts them to its input's type, which
costs nothing where they already agree. So the precision of a network is that of the tensor fed to its torso: no autocast, no
second copy of the code for 16 bits. Images are channels-last in memory throughout, so that no layer reorders them.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets import fused, winograd
from lodestar.nets.dropout import Dropout
from lodestar.nets.int8 import Grid, Grids, Packed

Resample = Literal["residual", "conv", "plain"]
"""Change of resolution in a U-Net: in a residual block (BigGAN's, ADM's), by a convolution beside it, or without parameters."""


class Conv2d(nn.Conv2d):
    """Convolution over [B, C, H, W]."""

    packed: Packed | None = None
    """The weights in 8 bits; None where it was never asked to convolve codes."""

    def pack(self) -> None:
        """Get ready to convolve codes, with the weights as they are now."""
        assert self.bias is not None
        self.packed = Packed(self.weight, self.bias)

    def of_codes(self, codes: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
        """The convolution of codes uint8 [B, C, H, W] on a grid, in `dtype`."""
        assert self.packed is not None, "it was not packed"
        return self.packed(codes, grid, dtype)

    def forward(self, x: Tensor) -> Tensor:
        if self.kernel_size == (3, 3) and self.stride == self.padding == (1, 1) and winograd.pays(x, self.weight):
            return winograd.conv3x3(x, self.weight, self.bias)
        bias = None if self.bias is None else self.bias.to(x.dtype)
        return F.conv2d(x, self.weight.to(x.dtype), bias, self.stride, self.padding)


class ConvTranspose2d(nn.ConvTranspose2d):
    """Transposed convolution over [B, C, H, W]."""

    def forward(self, x: Tensor, output_size: list[int] | None = None) -> Tensor:
        bias = None if self.bias is None else self.bias.to(x.dtype)
        assert not isinstance(self.padding, str)
        return F.conv_transpose2d(x, self.weight.to(x.dtype), bias, self.stride, self.padding)


class Linear(nn.Linear):
    """Affine map of the last dimension."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.to(x.dtype), None if self.bias is None else self.bias.to(x.dtype))


class GroupNorm(nn.GroupNorm):
    """Group normalization of [B, C, ...] with what the U-Net always does next: scale, shift and SiLU.

    `groups` is taken where it divides the channels (always, in the published networks); else their greatest common divisor.
    """

    def __init__(self, channels: int, groups: int, eps: float = 1e-5) -> None:
        super().__init__(math.gcd(channels, groups), channels, eps)

    def forward(
        self, x: Tensor, scale: Tensor | None = None, shift: Tensor | None = None, silu: bool = False, wide: bool = False
    ) -> Tensor:
        """scale and shift are [B, C, 1, 1]: norm(x)·(1 + scale) + shift. Of x's type, or if `wide` at least in float32."""
        if fused.norms(x):
            return self._fused(x, scale, shift, fused.Norm(self.num_groups, self.eps, silu, wide))
        x = x.to(torch.promote_types(x.dtype, torch.float32)) if wide else x
        if x.dtype == torch.float32 or x.is_cuda:
            y = F.group_norm(x, self.num_groups, self.weight.to(x.dtype), self.bias.to(x.dtype), self.eps)
        else:
            # On CPUs the 16-bit kernel is the slower one, and the rounder.
            y = F.group_norm(x.float(), self.num_groups, self.weight.float(), self.bias.float(), self.eps).to(x.dtype)
        if scale is not None:
            assert shift is not None
            y = torch.addcmul(shift, y, 1 + scale)
        return F.silu(y, inplace=not y.requires_grad) if silu else y

    def codes(self, x: Tensor, grid: Grid, scale: Tensor | None = None, shift: Tensor | None = None) -> Tensor:
        """Codes uint8 on a grid, of the norm with scale, shift and SiLU."""
        if fused.norms(x):
            return self._fused(x, scale, shift, fused.Norm(self.num_groups, self.eps, silu=True), grid)
        return grid.encode(self(x, scale, shift, silu=True))

    def _fused(
        self, x: Tensor, scale: Tensor | None, shift: Tensor | None, setting: fused.Norm, grid: Grid | None = None
    ) -> Tensor:
        factor, addend = (None if each is None else each.flatten(1) for each in (scale, shift))
        return fused.group_norm(x, self.weight, self.bias, factor, addend, setting, grid)


def lower(part: nn.Module, dtype: torch.dtype) -> None:
    """Keep a part's weights in `dtype`, for inference, but not those of norms, which compute in float32."""
    for module in part.modules():
        if not isinstance(module, GroupNorm):
            for parameter in module.parameters(recurse=False):
                parameter.data = parameter.data.to(dtype)


def timestep_embedding(time: Tensor, width: int, max_period: float = 10000.0, *, closed: bool = False) -> Tensor:
    """Sinusoids of times [B] (fractional ones too) as float32 [B, width]: cosines first, then sines (ADM's order).

    Frequencies fall evenly in their logarithm from 1 to 1/max_period, which is the last of them if `closed`, the next if not.
    """
    half = width // 2
    exponents = torch.arange(half, dtype=torch.float32, device=time.device) / (half - closed)
    frequencies = torch.exp(-math.log(max_period) * exponents)
    angles = time[:, None].float() * frequencies
    embedding = torch.cat([angles.cos(), angles.sin()], dim=-1)
    return F.pad(embedding, (0, width % 2))


def upsample(x: Tensor) -> Tensor:
    """Nearest-neighbour doubling of height and width."""
    return F.interpolate(x, scale_factor=2.0, mode="nearest")


def downsample(x: Tensor) -> Tensor:
    """2×2 average pooling."""
    return F.avg_pool2d(x, 2)


def zero(module: nn.Module) -> nn.Module:
    """Zero a module's parameters, so that the branch it ends begins as the identity's addend."""
    for parameter in module.parameters():
        nn.init.zeros_(parameter)
    return module


def normal(*shape: int, divisor: float = 1.0) -> Tensor:
    """Normal random numbers of `torch.randn`, divided; undefined on "meta", where PyTorch would load its compiler (70 MB, a
    second)."""
    values = torch.empty(shape)
    return values if values.is_meta else values.normal_().div_(divisor)


class Resampler(nn.Module):
    """Doubling or halving by itself: with a 3×3 convolution, or plain.

    one_sided: the halving convolution is padded at the lower and the right edge alone, as TensorFlow does; else on all sides.
    """

    def __init__(self, channels: int, direction: Literal["up", "down"], conv: bool, one_sided: bool = False) -> None:
        super().__init__()
        self.direction = direction
        self.one_sided = conv and one_sided and direction == "down"
        stride, padding = (2 if direction == "down" else 1), (0 if self.one_sided else 1)
        self.conv = Conv2d(channels, channels, 3, stride=stride, padding=padding) if conv else None

    def forward(self, x: Tensor, emb: Tensor, grids: Grids | None = None) -> Tensor:
        if self.direction == "up":
            x = upsample(x)
        elif self.one_sided:
            x = F.pad(x, (0, 1, 0, 1))
        elif self.conv is None:
            x = downsample(x)
        return x if self.conv is None else self.conv(x)


class ResBlock(nn.Module):
    """Residual block: norm, SiLU, 3×3 convolution, twice, with the embedding in between.

    adaptive: the embedding scales and shifts the second norm (ADM's AdaGN, equation 13); otherwise it is added before it (DDPM).
    direction: "up" or "down" resamples both branches inside the block (BigGAN's).
    rescale: the sum is multiplied by √½ (Song et al. 2021).
    """

    def __init__(
        self,
        channels: int,
        out_channels: int,
        emb_width: int,
        *,
        groups: int,
        eps: float = 1e-5,
        dropout: float = 0.0,
        adaptive: bool = True,
        direction: Literal["up", "down"] | None = None,
        rescale: bool = False,
    ) -> None:
        super().__init__()
        self.adaptive, self.direction, self.rescale = adaptive, direction, rescale
        self.number = 0
        """Of the network's residual blocks, which one this is."""
        self.norm1 = GroupNorm(channels, groups, eps)
        self.conv1 = Conv2d(channels, out_channels, 3, padding=1)
        self.emb = Linear(emb_width, 2 * out_channels if adaptive else out_channels)
        self.norm2 = GroupNorm(out_channels, groups, eps)
        self.dropout = Dropout(dropout)
        self.conv2 = Conv2d(out_channels, out_channels, 3, padding=1)
        zero(self.conv2)
        self.skip = nn.Identity() if channels == out_channels else Conv2d(channels, out_channels, 1)

    def pack(self) -> None:
        """Get ready to convolve in 8 bits; not what is averaged before, since averages of a grid's values are none."""
        for conv in (self.conv2,) if self.direction == "down" else (self.conv1, self.conv2):
            conv.pack()

    def forward(self, x: Tensor, emb: Tensor, grids: Grids | None = None) -> Tensor:
        """x [B, C, H, W]; emb [B, emb_width], its SiLU already taken. With grids, the convolutions are in 8 bits."""
        first, second = (None, None) if grids is None else grids[self.number]
        first = None if self.direction == "down" else first
        h = self.norm1(x, silu=True) if first is None else self.norm1.codes(x, first)
        if self.direction is not None:
            resample = upsample if self.direction == "up" else downsample
            h, x = resample(h), resample(x)
        h = self.conv1(h) if first is None else self.conv1.of_codes(h, first, x.dtype)
        e = self.emb(emb)[:, :, None, None]
        scale, shift = e.chunk(2, dim=1) if self.adaptive else (None, None)
        h = h if self.adaptive else h + e
        if second is None:
            h = self.conv2(self.dropout(self.norm2(h, scale, shift, silu=True)))
        else:
            h = self.conv2.of_codes(self.norm2.codes(h, second, scale, shift), second, x.dtype)
        h = self.skip(x) + h
        out: Tensor = h * math.sqrt(0.5) if self.rescale else h
        return out
