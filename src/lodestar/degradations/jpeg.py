"""The loss of JPEG: pictures compressed and decompressed, as by the usual library with its defaults, without the lossless part.

Baseline JPEG (ITU-T T.81) of 8-bit pictures: the luminance and chrominance tables of its annex K, scaled by quality, colours at
half the resolution (4:2:0) and enlarged by a triangle filter, as libjpeg does.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar.degradations.filters import Canvas, gathered, mixed

_SIDE = 8
"""Height and width of a block."""

_LUMA = (
    16, 11, 10, 16, 24, 40, 51, 61, 12, 12, 14, 19, 26, 58, 60, 55,
    14, 13, 16, 24, 40, 57, 69, 56, 14, 17, 22, 29, 51, 87, 80, 62,
    18, 22, 37, 56, 68, 109, 103, 77, 24, 35, 55, 64, 81, 104, 113, 92,
    49, 64, 78, 87, 103, 121, 120, 101, 72, 92, 95, 98, 112, 100, 103, 99,
)  # fmt: skip
_CHROMA = (
    17, 18, 24, 47, 99, 99, 99, 99, 18, 21, 26, 66, 99, 99, 99, 99,
    24, 26, 56, 99, 99, 99, 99, 99, 47, 66, 99, 99, 99, 99, 99, 99,
    *(99,) * 32,
)  # fmt: skip
_YCC = ((0.299, 0.587, 0.114), (-0.168735892, -0.331264108, 0.5), (0.5, -0.418687589, -0.081312411))
"""Luminance and the two colours of red, green and blue (JFIF)."""
_RGB = ((1.0, 0.0, 1.402), (1.0, -0.344136286, -0.714136286), (1.0, 1.772, 0.0))


def tables(quality: Tensor) -> tuple[Tensor, Tensor]:
    """Quantisation steps of luminance and chrominance [B, 64] at qualities from 1 to 100, int64 [B]."""
    scale = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    luma, chroma = (
        ((torch.tensor(base, device=quality.device) * scale[:, None] + 50) // 100).clamp(1, 255) for base in (_LUMA, _CHROMA)
    )
    return luma, chroma


def jpeg(canvas: Canvas, quality: Tensor) -> Tensor:
    """The pictures after JPEG of a quality from 1 to 100, int64 [B]: float32 [B, C, H, W].

    Pictures are grey or RGB, from 0 to 1, and are rounded to 8 bits before and after.
    """
    channels, height, width = canvas.values.shape[1:]
    assert channels in (1, 3), "JPEG has grey and coloured pictures"
    unit = _SIDE if channels == 1 else 2 * _SIDE
    rows, columns = (_edged(-(-side // unit) * unit, own) for side, own in ((height, canvas.height), (width, canvas.width)))
    image = (gathered(canvas.values, rows, columns) * 255).round().clamp(0, 255)
    luma, chroma = tables(quality)
    if channels == 1:
        return _coded(image, luma)[:, :, :height, :width] / 255
    first, second = image.new_tensor(_YCC), image.new_tensor(_RGB)
    y, colours = mixed(image, first[:1]).round(), (mixed(image, first[1:]) + 127.5).ceil()
    # A library without fractions rounds up and down by turns.
    bias = torch.arange(colours.shape[3] // 2, device=image.device) % 2 * 0.25 + 0.25
    halved = (F.avg_pool2d(colours, 2) + bias).floor()
    halved = _coded(halved, chroma)
    rows, columns = (
        _edged(side, (own + 1) // 2) for side, own in zip(halved.shape[2:], (canvas.height, canvas.width), strict=True)
    )
    colours = _enlarged(gathered(halved, rows, columns)) - 128
    made = mixed(torch.cat([_coded(y, luma), colours], dim=1), second)
    return made.round_().clamp_(0, 255)[:, :, :height, :width] / 255


def _edged(length: int, sizes: Tensor) -> Tensor:
    """Indices [B, length] that repeat the last row of a picture."""
    return torch.arange(length, device=sizes.device)[None].minimum(sizes[:, None] - 1)


def _enlarged(planes: Tensor) -> Tensor:
    """Planes of whole numbers [B, C, h, w], twice as large: three parts of the nearest pixel and one of the next, either way."""
    for dim, (first, second) in ((2, (0.0, 0.0)), (3, (8.0, 7.0))):
        size = planes.shape[dim]
        before = torch.cat([planes.narrow(dim, 0, 1), planes.narrow(dim, 0, size - 1)], dim)
        after = torch.cat([planes.narrow(dim, 1, size - 1), planes.narrow(dim, size - 1, 1)], dim)
        planes = torch.stack([3 * planes + before + first, 3 * planes + after + second], dim + 1).flatten(dim, dim + 1)
    return (planes / 16).floor_()


def _cosines(like: Tensor) -> Tensor:
    """The cosine transform of blocks of 8 × 8 as an orthogonal matrix [64, 64]."""
    places = (torch.arange(_SIDE, dtype=torch.float64) + 0.5) * math.pi / _SIDE
    row = torch.cos(places * torch.arange(_SIDE)[:, None]) * math.sqrt(2 / _SIDE)
    row[0] /= math.sqrt(2)
    return torch.kron(row, row).to(like)


def _coded(planes: Tensor, steps: Tensor) -> Tensor:
    """Planes [B, C, h, w] of whole numbers after rounding of their cosine transform to multiples of steps [B, 64]."""
    count, channels, height, width = planes.shape
    matrix, steps = _cosines(planes), steps.to(planes)[:, None, None]
    shape = (count, channels, height // _SIDE, _SIDE, width // _SIDE, _SIDE)
    blocks = (planes - 128).view(shape).transpose(3, 4).reshape(count, channels, -1, _SIDE * _SIDE)
    # As whole numbers of eighths, and halves away from zero: halves are frequent, since means of blocks are eighths too.
    waves = (blocks @ (8 * matrix.T)).round_()
    waves = ((waves.abs() / 8 / steps) + 0.5).floor_().copysign_(waves) * steps
    back = (waves @ matrix).view(count, channels, *(shape[k] for k in (2, 4, 3, 5))).transpose(3, 4)
    return back.reshape(planes.shape).round_().add_(128).clamp_(0, 255)
