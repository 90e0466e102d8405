"""Between 8-bit pictures and the numbers that pixel models are trained on."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lodestar.codecs.base import Codec, Coder


def encode(image: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to float32 in [−1, 1], as the published code has it: image/127.5 − 1."""
    return image.float() / 127.5 - 1.0


def decode(x: Tensor) -> Tensor:
    """Floats to uint8 [B, C, H, W], rounded down from (x + 1)·127.5 and clamped, as the published code has it."""
    return ((x + 1.0) * 127.5).clamp(0, 255).to(torch.uint8)


def centre(image: Tensor) -> Tensor:
    """uint8 [B, C, H, W] to the middle of what `decode` rounds down to it, at most 1.

    A quarter of what `encode` makes comes back one less; this comes back as it was.
    """
    return ((image.float() + 0.5) / 127.5 - 1.0).clamp(max=1.0)


class Pixels(Codec):
    """8-bit pictures as they are, in [−1, 1]."""

    kind: Literal["pixels"] = "pixels"

    @property
    def limit(self) -> float | None:
        return 1.0

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def build(self) -> PixelCoder:
        return PixelCoder()


class PixelCoder(Coder):
    """See Pixels. It has no weights."""

    def encode(self, data: Tensor) -> Tensor:
        return encode(data)

    def decode(self, x: Tensor) -> Tensor:
        return decode(x)

    def centre(self, data: Tensor) -> Tensor:
        return centre(data)
