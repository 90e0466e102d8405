"""The codec of 8-bit pictures for pixel models."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lodestar.codecs.base import Codec, Coder


def encode(image: Tensor) -> Tensor:
    """Encode uint8 [B, C, H, W] as float32 in [−1, 1], as in the published code: image/127.5 − 1."""
    return image.float() / 127.5 - 1.0


def decode(x: Tensor) -> Tensor:
    """Decode floats to uint8 [B, C, H, W], rounded down from (x + 1)·127.5 and clamped, as in the published code."""
    return ((x + 1.0) * 127.5).clamp(0, 255).to(torch.uint8)


def centre(image: Tensor) -> Tensor:
    """Encode uint8 [B, C, H, W] at the middle of `decode`'s bins, at most 1.

    A quarter of values from `encode` decode to one less; these decode exactly.
    """
    return ((image.float() + 0.5) / 127.5 - 1.0).clamp(max=1.0)


class Pixels(Codec):
    """8-bit pictures as values in [−1, 1]."""

    kind: Literal["pixels"] = "pixels"

    @property
    def limit(self) -> float | None:
        return 1.0

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def build(self) -> PixelCoder:
        return PixelCoder()


class PixelCoder(Coder):
    """The coder of `Pixels`, without weights."""

    def encode(self, data: Tensor) -> Tensor:
        return encode(data)

    def decode(self, x: Tensor) -> Tensor:
        return decode(x)

    def centre(self, data: Tensor) -> Tensor:
        return centre(data)
