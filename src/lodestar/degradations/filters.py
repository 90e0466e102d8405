"""Convolution and resizing of pictures of different sizes in one batch, each with its own kernel.

Pictures lie in the top left corners of a batch [B, C, H, W], and are as high and wide as their `Canvas` says.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Canvas:
    """A batch of pictures of different sizes."""

    values: Tensor
    """float32 [B, C, H, W]; beyond a picture's own size is anything."""
    height: Tensor
    width: Tensor
    """int64 [B]."""

    @classmethod
    def of(cls, values: Tensor) -> Self:
        """The canvas of pictures of one size, [B, C, H, W]."""
        height, width = (torch.full((len(values),), side, device=values.device) for side in values.shape[2:])
        return cls(values, height, width)

    def __getitem__(self, rows: Tensor) -> Self:
        """Some of the pictures, on a canvas of the size of the largest."""
        height, width = self.height[rows], self.width[rows]
        return type(self)(self.values[rows, :, : int(height.max()), : int(width.max())], height, width)


def gaussian(variance: Tensor, angle: Tensor | None, side: int, reach: Tensor | None = None) -> Tensor:
    """Gaussian kernels [B, side, side] of sum 1, sampled at the pixels.

    variance: [B, 2], along the first axis and across. angle: of the first axis from the horizontal, [B]; None is 0.
    reach: [B], beyond which distance from the middle, along either side, a kernel is 0.
    """
    offset = torch.arange(side, dtype=variance.dtype, device=variance.device) - (side - 1) / 2
    x, y = offset[None, None, :], offset[None, :, None]
    angle = torch.zeros_like(variance[:, 0]) if angle is None else angle
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    # A variance of nearly nothing leaves the middle alone.
    first, second = variance.clamp(min=1e-8)[:, :, None, None].unbind(1)
    kernel = torch.exp(-((cos * x + sin * y).square() / first + (sin * x - cos * y).square() / second) / 2)
    if reach is not None:
        within = offset.abs() <= reach[:, None]
        kernel = kernel * (within[:, :, None] & within[:, None, :])
    return kernel / kernel.sum(dim=(1, 2), keepdim=True)


def shifted(kernel: Tensor, by: float) -> Tensor:
    """Kernels [B, side, side] moved up and left by so many pixels, between pixels bilinearly, of sum 1; borders repeat."""
    side = kernel.shape[-1]
    places = (torch.arange(side, dtype=kernel.dtype, device=kernel.device) + by).clamp(0, side - 1)
    weight = (1 - (places[:, None] - torch.arange(side, device=kernel.device)).abs()).clamp(min=0)
    moved = weight @ kernel @ weight.T
    return moved / moved.sum(dim=(1, 2), keepdim=True)


def mirrored(length: int, margin: int, sizes: Tensor) -> Tensor:
    """Indices [B, length + 2·margin] of rows and a margin around them; pictures are mirrored at their last pixels."""
    period = (2 * sizes[:, None] - 2).clamp(min=1)
    index = torch.arange(-margin, length + margin, device=sizes.device)[None].remainder(period)
    return torch.minimum(index, period - index).minimum(sizes[:, None] - 1)


def gathered(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """The rows [B, R] and columns [B, S] of pictures [B, C, H, W], by their indices."""
    channels = values.shape[1]
    for dim, index in ((2, rows), (3, columns)):
        if (index == index[0]).all():  # pictures of one size
            whole = torch.equal(index[0], torch.arange(values.shape[dim], device=index.device))
            values = values if whole else values.index_select(dim, index[0])
        elif dim == 2:
            values = values.gather(2, index[:, None, :, None].expand(-1, channels, -1, values.shape[3]))
        else:
            values = values.gather(3, index[:, None, None, :].expand(-1, channels, values.shape[2], -1))
    return values


def mixed(values: Tensor, weights: Tensor) -> Tensor:
    """Weighted sums of channels [B, D, H, W] of pictures [B, C, H, W]; weights [D, C], or [B, D, C]."""
    made: Tensor = (weights @ values.flatten(2)).unflatten(2, values.shape[2:])
    return made


def blurred(values: Tensor | Canvas, kernel: Tensor) -> Tensor:
    """Convolution [B, C, H, W] with each picture's kernel [B, side, side] of odd side; pictures are mirrored at their borders."""
    canvas = values if isinstance(values, Canvas) else Canvas.of(values)
    height, width = canvas.values.shape[2:]
    margin = kernel.shape[-1] // 2
    if margin < min(height, width) and (canvas.height == height).all() and (canvas.width == width).all():
        around = F.pad(canvas.values, (margin,) * 4, mode="reflect")
    else:
        around = gathered(canvas.values, mirrored(height, margin, canvas.height), mirrored(width, margin, canvas.width))
    size = tuple(_fast(side) for side in around.shape[2:])
    spectrum = torch.fft.rfft2(around, s=size) * torch.fft.rfft2(kernel.to(around), s=size)[:, None]
    made: Tensor = torch.fft.irfft2(spectrum, s=size)
    return made[:, :, 2 * margin : 2 * margin + height, 2 * margin : 2 * margin + width]


def _fast(length: int) -> int:
    """The next length whose prime factors are 2, 3 and 5."""
    for candidate in range(length, 2 * length + 1):
        rest = candidate
        for prime in (2, 3, 5):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return candidate
    raise AssertionError("there is a power of 2 in between")


Taps = tuple[Tensor, Tensor]
"""For each pixel of the result, pixels that it is made of, int64 [B, R, T], and their weights, float64 [B, R, T]."""


def linear(old: Tensor, new: Tensor, rows: int) -> Taps:
    """Linear interpolation between the two nearest pixels."""
    place = _centres(old, new, rows)
    low = place.floor()
    return _clamped(low, 2, old), torch.stack([1 - (place - low), place - low], dim=-1)


def cubic(old: Tensor, new: Tensor, rows: int) -> Taps:
    """Cubic interpolation between the four nearest pixels, a = −0.75."""
    place = _centres(old, new, rows)
    first = place.floor() - 1
    return _clamped(first, 4, old), _keys(place[..., None] - _row(first, 4), -0.75)


def box(old: Tensor, new: Tensor, rows: int) -> Taps:
    """Means over areas; enlarging, nearest pixels that blend within a pixel of the result."""
    pixel = torch.arange(rows, device=old.device)
    first = pixel * old[:, None] // new[:, None]
    low, high = _scaled(pixel, old, new), _scaled(pixel + 1, old, new)
    index = _row(first, math.ceil(float((old / new).max())) + 1)
    shared = torch.minimum(high[..., None], index + 1.0) - torch.maximum(low[..., None], index)
    return index.minimum(old[:, None, None] - 1), shared.clamp(min=0) / (high - low)[..., None]


def blend(old: Tensor, new: Tensor, rows: int) -> Taps:
    """Areas of a picture that is enlarged: the nearest pixel, blended with the next within one pixel of the result."""
    pixel = torch.arange(rows, device=old.device)
    first = pixel * old[:, None] // new[:, None]
    share = pixel + 1 - _scaled(first + 1, new, old)
    share = torch.where(share <= 0, 0.0, share - share.floor())
    return _clamped(first, 2, old), torch.stack([1 - share, share], dim=-1)


def smooth(old: Tensor, new: Tensor, rows: int) -> Taps:
    """Cubic interpolation, a = −0.5, of a kernel as wide as the picture shrinks, mirrored beyond the border's pixel."""
    place, scale = _centres(old, new, rows), (old / new)[:, None, None].double()
    reach = math.ceil(2 * float(scale.max()))
    index = _row(place.floor() - reach + 1, 2 * reach)
    weight = _keys((place[..., None] - index) / scale, -0.5)
    end = old[:, None, None]
    index = torch.where(index < 0, -1 - index, torch.where(index >= end, 2 * end - 1 - index, index)).long()
    return index.clamp(min=0).minimum(end - 1), weight / weight.sum(dim=-1, keepdim=True)


METHODS: tuple[Callable[[Tensor, Tensor, int], Taps], ...] = (linear, cubic, box)
"""Methods of resizing, of which a degradation draws one."""


def resized(canvas: Canvas, height: Tensor, width: Tensor, method: Tensor) -> Canvas:
    """The pictures at new heights and widths, int64 [B], each by the method of a number, int64 [B]."""
    # Areas are areas if a picture does not grow in either direction.
    grows = (height > canvas.height) | (width > canvas.width)
    chosen = {each: (method == number) for number, each in enumerate(METHODS)}
    chosen |= {blend: chosen[box] & grows, box: chosen[box] & ~grows}
    rows = _matrix(chosen, canvas.height, height, canvas.values.shape[2])
    columns = _matrix(chosen, canvas.width, width, canvas.values.shape[3])
    return Canvas(matrices(canvas.values, rows, columns), height, width)


def matrices(values: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Pictures [B, C, H, W] resized [B, C, R, S] by matrices [B, R, H] and [B, S, W]."""
    count, channels, height, _ = values.shape
    # Columns first, all channels in one product: the larger part of the work, without copies.
    narrow = (values.flatten(1, 2) @ columns.to(values).mT).view(count, channels, height, -1)
    return rows.to(values)[:, None] @ narrow


def matrix(taps: Taps, length: int) -> Tensor:
    """Taps as matrices [B, R, length]."""
    index, weight = taps
    return torch.zeros(*index.shape[:2], length, dtype=weight.dtype, device=weight.device).scatter_add_(2, index, weight)


def _matrix(chosen: dict[Callable[[Tensor, Tensor, int], Taps], Tensor], old: Tensor, new: Tensor, length: int) -> Tensor:
    made = torch.zeros(len(old), int(new.max()), length, device=old.device)
    for method, rows in chosen.items():
        if rows.any():
            made[rows] = matrix(method(old[rows], new[rows], made.shape[1]), length).float()
    return made


def _centres(old: Tensor, new: Tensor, rows: int) -> Tensor:
    """Middles of the result's pixels in those of the source, float64 [B, R]."""
    return _scaled(torch.arange(rows, device=old.device) + 0.5, old, new) - 0.5


def _scaled(places: Tensor, old: Tensor, new: Tensor) -> Tensor:
    return places * (old.double() / new)[:, None]


def _row(first: Tensor, count: int) -> Tensor:
    return first[..., None] + torch.arange(count, device=first.device)


def _clamped(first: Tensor, count: int, old: Tensor) -> Tensor:
    return _row(first, count).long().clamp(min=0).minimum(old[:, None, None] - 1)


def _keys(x: Tensor, a: float) -> Tensor:
    """Keys's cubic kernel (1981)."""
    x = x.abs()
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = a * (((x - 5) * x + 8) * x - 4)
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
