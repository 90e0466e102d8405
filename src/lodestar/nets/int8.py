"""3×3 convolutions in 8 bits: activations on a grid known beforehand, weights on one for each output channel, sums of 32 bits.

The activations are those after SiLU, so their least value is known; their largest is calibrated (`lodestar.quantize`). Where
the processor multiplies bytes (VNNI, AMX), oneDNN convolves them; elsewhere the same numbers are convolved as floats, slowly.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.nets.native import processor

LOW = -0.2784645
"""Least value of SiLU."""
_PLACE = ([1, 1], [1, 1], [1, 1], 1)
"""Stride, padding, dilation and groups of the convolutions."""


class Grid(NamedTuple):
    """The values that 8 bits stand for: (q − zero)·step for q = 0 … 255."""

    step: float
    zero: int

    @classmethod
    def to(cls, high: float) -> Self:
        """The grid from SiLU's least value to `high`."""
        step = (high - LOW) / 255
        return cls(step, round(-LOW / step))

    def encode(self, values: Tensor) -> Tensor:
        """The nearest of the grid's values, as uint8 of the same shape."""
        return (values.float() / self.step + self.zero).round().clamp(0, 255).to(torch.uint8)

    def decode(self, codes: Tensor) -> Tensor:
        """The values of codes, float32 of the same shape."""
        return (codes.float() - self.zero) * self.step


Grids = Sequence[tuple[Grid, Grid]]
"""The grids before both convolutions of every residual block, by the block's number."""


@functools.cache
def supported() -> bool:
    """True if oneDNN convolves bytes on this processor without loss; with AVX2 alone, its sums of 16 bits overflow."""
    abilities = processor().abilities.split()
    return any("vnni" in each or each == "amx_int8" for each in abilities) and torch.backends.mkldnn.is_available()


@functools.cache
def between() -> torch.dtype:
    """The number format of everything that is not in 8 bits: bfloat16 where the processor convolves in it, else float32."""
    return torch.bfloat16 if has_bfloat16() else torch.float32


def has_bfloat16() -> bool:
    """True if oneDNN has convolutions in bfloat16 for the processor; elsewhere PyTorch's are a hundred times as slow."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


class Packed:
    """The weights of a convolution in 8 bits, in the order in which they are read. Immutable."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        """weight [O, C, 3, 3], bias [O], of any format."""
        weight = weight.detach().float()
        self.bias = bias.detach().float()
        largest = weight.abs().amax((1, 2, 3))
        self.scales = torch.where(largest > 0, largest / 127, 1.0)
        codes = (weight / self.scales[:, None, None, None]).round()
        self.zeros = torch.zeros(len(codes), dtype=torch.int32)
        self.weight = codes
        if supported():
            # Grids are given with every call: what is packed holds for all that have a zero other than 0.
            self.weight = torch.ops.onednn.qconv_prepack(codes.to(torch.int8), self.scales, 1.0, 1, *_PLACE, None)

    def __deepcopy__(self, memo: object) -> Self:
        return self

    def __call__(self, codes: Tensor, grid: Grid, dtype: torch.dtype) -> Tensor:
        """The convolution of codes uint8 [B, C, H, W] on a grid, plus bias, in `dtype` [B, O, H, W]."""
        if supported():
            how: tuple[Any, ...] = (*_PLACE, 1.0, 0, dtype, "none", [], "")
            scaled = (self.weight, self.scales, self.zeros, self.bias)
            out: Tensor = torch.ops.onednn.qconv2d_pointwise(codes, grid.step, grid.zero, *scaled, *how)
            return out
        sums = F.conv2d(codes.float() - grid.zero, self.weight, padding=1)
        return (sums * (grid.step * self.scales)[:, None, None] + self.bias[:, None, None]).to(dtype)
