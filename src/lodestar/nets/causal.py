"""Causal layers over a map in raster order, and a walk over its places that computes each layer at one place at a time.

A layer's input is [B, C, H, W] for a whole map, and [B, C] at a `Place`, which keeps what the layer needs of places before.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lodestar.nets.dropout import Dropout

T = TypeVar("T")


class Place:
    """A place of maps made in raster order, and what layers keep of the places before."""

    def __init__(self, count: int, size: tuple[int, int], codes: int, device: torch.device, margin: int = 0) -> None:
        """margin: number of places around a map that its layers see, all of them empty."""
        self.size, self.row, self.column, self.margin, self.nothing = size, 0, 0, margin, codes
        shape = (count, size[0] + margin, size[1] + 2 * margin)
        self._numbers = torch.full(shape, codes, dtype=torch.int64, device=device)
        self._kept: dict[Any, Any] = {}

    def __iter__(self) -> Iterator[int]:
        """The columns of all rows, in order; row and column of the place follow."""
        height, width = self.size
        for number in range(height * width):
            self.row, self.column = divmod(number, width)
            yield self.column

    @property
    def number(self) -> int:
        """Number of places before this one."""
        return self.row * self.size[1] + self.column

    def choose(self, codes: Tensor) -> None:
        """Set the codes int64 [B] of this place."""
        self._numbers[:, self.row + self.margin, self.column + self.margin] = codes

    def once(self, key: Any, make: Callable[[], T]) -> T:
        """A value that is made at the first place where it is asked for."""
        if key not in self._kept:
            self._kept[key] = make()
        kept: T = self._kept[key]
        return kept

    def pick(self, features: Tensor) -> Tensor:
        """Features [B, C, H, W], or [B, C, 1, 1] of all places alike, at this place."""
        return features[:, :, min(self.row, features.shape[2] - 1), min(self.column, features.shape[3] - 1)]

    def line(self, features: Tensor) -> Tensor:
        """Features [B, C, H, W], or [B, C, 1, 1] of all places alike, in this row, [B, C, 1, W]."""
        row = min(self.row, features.shape[2] - 1)
        return features[:, :, row : row + 1]

    def weights(self, layer: Normed) -> tuple[Tensor, Tensor | None]:
        """A layer's weight [C', taps·C], channels last, and bias."""
        return self.once((layer, "weight"), lambda: (layer.weight.movedim(1, -1).flatten(1), layer.bias))

    def window(self, layer: Causal, x: Tensor) -> Tensor:
        """Inputs of a causal layer in its window at this place, [B, taps·C], with x [B, C] at the place itself."""
        height, width = layer.direction.shape[2:]
        left, right, top, _ = layer.pad
        shape = (len(x), self.size[0] + top, self.size[1] + left + right, x.shape[1])
        seen = self.once((layer, "seen"), lambda: x.new_zeros(shape))
        seen[:, self.row + top, self.column + left] = x
        return seen[:, self.row : self.row + height, self.column : self.column + width].flatten(1)

    def above(self, layer: Causal, x: Tensor) -> Tensor:
        """Rows in the windows of a causal layer, [B, C, height, W], with x [B, C, 1, W] as this row."""
        height = layer.direction.shape[2]
        rows = torch.cat([self.once((layer, "rows"), lambda: x.new_zeros(len(x), x.shape[1], height, x.shape[3])), x], dim=2)
        self._kept[layer, "rows"] = rows = rows[:, :, 1:]
        return rows

    def past(self, layer: nn.Module, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Keys and values [B, heads, N, d] of the N places before, in attention that is given those of this place."""
        batch, heads, channels = key.shape
        places = self.size[0] * self.size[1]
        keys, values = self.once((layer, "past"), lambda: key.new_empty(2, batch, heads, places, channels))
        keys[:, :, self.number], values[:, :, self.number] = key, value
        return keys[:, :, : self.number], values[:, :, : self.number]

    def of_codes(self, layer: Causal, top: int, left: int) -> Tensor:
        """A layer over one-hot codes, whose window begins so many places above and left of this one, [B, C']."""
        height, width = layer.direction.shape[2:]
        row, column = self.row + self.margin - top, self.column + self.margin - left
        seen = self._numbers[:, row : row + height, column : column + width]
        return self._of_numbers(layer, seen.flatten(1))

    def line_of_codes(self, layer: Causal, top: int) -> Tensor:
        """A layer over one-hot codes whose windows begin so many places above this row, in all of the row, [B, C', 1, W]."""
        height, width = layer.direction.shape[2:]
        row, left = self.row + self.margin - top, self.margin - width // 2
        seen = self._numbers[:, row : row + height, left : left + self.size[1] + width - 1].unfold(2, width, 1)
        seen = seen.transpose(1, 2)  # [B, W, height, width]
        return self._of_numbers(layer, seen.flatten(2).flatten(0, 1)).view(len(seen), 1, self.size[1], -1).permute(0, 3, 1, 2)

    def _of_numbers(self, layer: Causal, numbers: Tensor) -> Tensor:
        """The sum of a layer's weights [N, C'] for codes int64 [N, taps]; nothing adds nothing."""

        def table() -> Tensor:
            weight = layer.weight.flatten(2).permute(2, 1, 0)  # [taps, K, C']
            return F.pad(weight, (0, 0, 0, 1)).flatten(0, 1)

        taps = torch.arange(numbers.shape[1], device=numbers.device) * (self.nothing + 1)
        summed = F.embedding_bag(numbers + taps, self.once((layer, "table"), table), mode="sum")
        return summed if layer.bias is None else summed + layer.bias


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

    def forward(self, x: Tensor, at: Place | None = None) -> Tensor:
        if at is not None:
            return F.linear(x, *at.weights(self))
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

    def forward(self, x: Tensor, at: Place | None = None) -> Tensor:
        """At a place, x is [B, C], or all of its row, [B, C, 1, W], where the layer sees "up"."""
        assert self.bias is not None
        if at is not None and x.ndim == 2:
            return super().forward(at.window(self, x), at)
        x = F.pad(x, self.pad) if at is None else F.pad(at.above(self, x), self.pad[:2])
        return F.conv2d(x, self.weight.to(x.dtype), self.bias.to(x.dtype))


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

    def forward(self, x: Tensor, beside: Tensor | None = None, told: Tensor | None = None, at: Place | None = None) -> Tensor:
        """told: features of a condition, of the whole map at a place too."""
        h = self.conv1(F.elu(x), at)
        if self.beside is not None:
            assert beside is not None
            h = h + self.beside(F.elu(beside), at)
        h = self.conv2(self.dropout(F.elu(h)), at)
        if self.told is not None:
            assert told is not None
            h = h + (self.told(told) if at is None else at.pick(at.once(self, partial(self.told, told))))
        return x + F.glu(h, dim=1)


def telling(codes: int, told: int, kernel: int, blocks: int) -> nn.Sequential:
    """A network of one-hot codes [B, codes, h, w] to features [B, told, h, w], not causal."""
    return nn.Sequential(Normed(told, codes, kernel, kernel), *(Gated(told, told, kernel) for _ in range(blocks)))
