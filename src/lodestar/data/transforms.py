"""Transforms of a picture for the network: size, crop, flip.

Deterministic changes (`lodestar.data.colour.convert`, `fit`) are made once, when the picture is decoded, and kept. Random changes
are made by `Transforms`, from a generator given per picture, so that a resumed run makes the same choices.
"""

from __future__ import annotations

import io
import math
from typing import Literal

import numpy as np
from PIL import Image, ImageOps
from pydantic import model_validator

from lodestar.config import Config, Problem, Side

Size = tuple[int, int]
"""(height, width) in pixels."""


class Transforms(Config):
    """Preprocessing of a picture in training: the source is opened with `source_size`, then each picture passed through this."""

    size: Side | tuple[Side, Side] | None = None
    """Size of the result: one number for a square, or (height, width). None: the data's."""
    crop: Literal["centre", "random"] = "centre"
    """``centre``: resized to cover `size`, the middle kept. ``random``: resized to 8/7 of it, any window of `size` kept."""
    whole: Side | tuple[Side, Side] | None = None
    """Size of whole pictures, of which upsamplers are trained on windows of `size` and made for the whole; with a random crop."""
    flip: bool = False
    """Mirror every other picture, by chance, left to right."""

    @model_validator(mode="after")
    def _check(self) -> Transforms:
        if self.crop == "random" and self.size is None:
            raise ValueError("crop 'random' needs a size to crop to")
        if self.whole is not None:
            if self.crop != "random":
                raise ValueError(f"whole is {self.whole}, and crop {self.crop!r} leaves no window to choose: take crop 'random'")
            assert self.size is not None
            self.result_size(pair(self.whole))
        return self

    @property
    def source_size(self) -> Size | None:
        """The size to open a source with."""
        if self.size is None:
            return None
        if self.whole is not None:
            return pair(self.whole)
        height, width = pair(self.size)
        # 8/7 is the margin of 256 to 224, the usual one since AlexNet.
        return (height, width) if self.crop == "centre" else (math.ceil(height * 8 / 7), math.ceil(width * 8 / 7))

    def result_size(self, source_size: Size) -> Size:
        """The size that pictures of `source_size` come out with. Raises Problem when they are smaller than `size`."""
        if self.size is None:
            return source_size
        height, width = pair(self.size)
        if source_size[0] < height or source_size[1] < width:
            raise Problem(f"pictures of {show(source_size)} are too small to crop to {show((height, width))} (height×width)")
        return height, width

    @property
    def window(self) -> Size | None:
        """The size of windows of whole pictures; None if pictures are not taken apart."""
        return None if self.whole is None or self.size is None else pair(self.size)

    def applied_size(self, source_size: Size) -> Size:
        """The size of the pictures that a model is made for: whole ones, if it is trained on windows of them."""
        return self.result_size(source_size) if self.whole is None else pair(self.whole)

    def __call__(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A crop, perhaps mirrored, of a picture uint8 [C,H,W]: a view of it, uint8 [C,h,w]."""
        height, width = self.result_size((image.shape[1], image.shape[2]))
        spare = (image.shape[1] - height, image.shape[2] - width)
        top, left = rng.integers(0, spare, endpoint=True) if self.crop == "random" else (spare[0] // 2, spare[1] // 2)
        image = image[:, top : top + height, left : left + width]
        return image[:, :, ::-1] if self.flip and rng.random() < 0.5 else image


def fit(picture: Image.Image, size: Size) -> Image.Image:
    """The middle of a picture, resized (Lanczos, over the area when it shrinks) to exactly `size`, aspect ratio kept."""
    height, width = size
    return picture if picture.size == (width, height) else ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def to_array(picture: Image.Image) -> np.ndarray:
    """A grey or RGB picture as uint8 [C,H,W]."""
    array = np.asarray(picture, dtype=np.uint8)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def to_png(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return file.getvalue()


def pair(size: int | Size) -> Size:
    """(height, width) of a size given as one number or two."""
    return (size, size) if isinstance(size, int) else size


def show(size: Size) -> str:
    """Height×width, for messages."""
    return f"{size[0]}×{size[1]}"
