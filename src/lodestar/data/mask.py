"""Masks of pictures to edit: which of a model's places are to be filled in, from a file that a person has painted.

A model has fewer places than a picture has pixels, so that a place may be white and black in the mask. Such a place is filled in:
a thin line that is to be removed would be kept otherwise. The price is black that is filled in along the edges, which is told.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from lodestar.config import Note, Problem
from lodestar.data.pictures import Picture, converted
from lodestar.data.transforms import Size, show, to_array
from lodestar.files import regular

WHITE = 128
"""From this value of 255 on a mask counts as white; darker greys are black."""
_SEEN = 16
"""A grey that is darker than this is taken for black by a person too."""
_COLOURED = 32
"""Channels that differ by more are a colour, and by less the noise of a JPEG file."""


def read_mask(mask: str | Path | Image.Image, size: Size, pictures: Sequence[Picture]) -> np.ndarray:
    """A mask as bool [H, W] of `size`, the model's: True where it has any white, after cropping like the pictures.

    A file or PIL's picture, it is as large as each of the pictures was, or as `size`. White is `WHITE` of 255 and up, or half
    of the range of 16 bits; transparent parts are black. A `Note` tells every change: places with black that are filled in,
    greys, transparent parts, and white that is cropped away. Raises Problem for another size, for colours, and where nothing
    is white.
    """
    name = "the mask" if isinstance(mask, Image.Image) else f"the mask {mask}"

    def opened() -> Image.Image:
        return _on_black(mask if isinstance(mask, Image.Image) else Image.open(regular(Path(mask))), name)

    whole = converted(opened, "the mask" if isinstance(mask, Image.Image) else str(mask), 3)
    sizes = {picture.size for picture in pictures}
    if (whole.height, whole.width) != size and sizes != {(whole.height, whole.width)}:
        of_them = ", ".join(show(each) for each in sorted(sizes))
        raise Problem(
            f"{name} is {show((whole.height, whole.width))}: it has to be of the picture's size ({of_them}) "
            f"or of the model's ({show(size)}; height×width)"
        )
    return _places(_greys(to_array(whole), name), size, name)


def _on_black(picture: Image.Image, name: str) -> Image.Image:
    """The painted picture, upright, on black where it is transparent."""
    picture = ImageOps.exif_transpose(picture)
    if not picture.has_transparency_data:
        return picture
    if picture.mode.startswith("I;16"):
        values = np.asarray(picture)
        opaque = values != picture.info["transparency"]
        painted = Image.fromarray(np.where(opaque, values, 0).astype(np.uint16))
    else:
        picture = picture.convert("RGBA")
        opaque = np.asarray(picture.getchannel("A")) == 255
        painted = Image.alpha_composite(Image.new("RGBA", picture.size, "black"), picture).convert("RGB")
    if not opaque.all():
        warnings.warn(Note(f"{name}: what is transparent in it counts as black and is kept"), stacklevel=2)
    return painted


def _greys(image: np.ndarray, name: str) -> np.ndarray:
    """The greys uint8 [H, W] of a picture uint8 [3, H, W]. Raises Problem where it has colours."""
    low: np.ndarray = image.min(0)
    high: np.ndarray = image.max(0)
    coloured = int((high - low > _COLOURED).sum())
    if coloured:
        raise Problem(
            f"{name} has colours in {coloured} of its {high.size} pixels: white is filled in and black is kept, "
            "so paint it in these alone"
        )
    return high


def _places(greys: np.ndarray, size: Size, name: str) -> np.ndarray:
    """Places with any white among their greys uint8 [H, W], bool of `size`; reports losses, see `read_mask`."""
    # As `transforms.fit` crops: the middle, as large as it gets, so many pixels a place.
    step = min(length / count for length, count in zip(greys.shape, size, strict=True))
    down, across = (_covers(step, count, length) for length, count in zip(greys.shape, size, strict=True))

    def any_of(pixels: np.ndarray) -> np.ndarray:
        white: np.ndarray = down @ pixels.astype(np.float32) @ across.T > 0
        return white

    white = greys >= WHITE
    filled = any_of(white)
    if not filled.any():
        dark = f"its brightest value is {greys.max()} of 255, and white begins at {WHITE}"
        why = "all of its white is cropped away with the picture's edges" if white.any() else dark
        raise Problem(f"nothing is masked: {name} is to be white where the picture is to be filled in, and {why}")
    edges, dim = filled & any_of(~white), any_of(greys >= _SEEN) & ~filled
    seen = np.logical_and.outer(down.any(axis=0), across.any(axis=0))
    told = [
        f"{edges.sum()} of the {filled.sum()} places that are filled in are partly black" if edges.any() else "",
        f"{dim.sum()} places are grey and kept: white begins at {WHITE} of 255" if dim.any() else "",
        "some of its white is cropped away with the picture's edges" if (white & ~seen).any() else "",
    ]
    if any(told):
        warnings.warn(Note(f"{name} for {show(size)} places: {'; '.join(filter(None, told))}"), stacklevel=3)
    return filled


def _covers(step: float, count: int, length: int) -> np.ndarray:
    """Coverage of `length` pixels by `count` places: 0 or 1, [count, length]. step: length of a place, in pixels."""
    edges, pixels = (length - step * count) / 2 + step * np.arange(count + 1), np.arange(length)
    # Not those that it touches by rounding alone.
    return ((pixels + 1 > edges[:-1, None] + 1e-6) & (pixels < edges[1:, None] - 1e-6)).astype(np.float32)
