"""Conversion of stored pictures to 8 bits: grey or RGB, upright, on white, from any form of storage.

Pillow opens deep pictures of several channels in 8 bits, by their high bytes, and compares a transparent colour with scaled
values; so everything that depends on all bits is computed here.
"""

from __future__ import annotations

import io
import sys
from typing import Any

import numpy as np
from PIL import ExifTags, Image

from lodestar.data.transforms import to_array

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""Pillow's operation for each orientation of EXIF, which turns the picture upright."""

_OTHER_BYTE = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}
"""Byte order in which the low byte of 16 bits is taken for the high one, by the byte order in the name of Pillow's raw mode."""


def convert(picture: Image.Image, channels: int) -> Image.Image:
    """A picture as it is opened, upright, as grey (1 channel) or RGB (3) of 8 bits, what is transparent on white.

    Values of more bits are rounded to the nearest of 255. Raises ValueError for values of no known range, and whatever Pillow's
    readers do.
    """
    mode = "L" if channels == 1 else "RGB"
    flat, picture = _flat(picture)
    if flat.mode == "LAB":
        flat = flat.convert("RGB")  # to which alone Pillow converts it
    if flat.mode != mode:
        flat = flat.convert(mode)
    picture.load()  # some readers turn the picture themselves, and then tell no orientation
    turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
    return flat if turn is None else flat.transpose(turn)


def in_colour(picture: Image.Image) -> bool:
    """True if a picture is stored in colour: in more than one channel, or in a palette with visible colours."""
    if picture.mode in ("P", "PA"):
        array = to_array(convert(picture, 3))
        return bool((array != array[:1]).any())
    return not (picture.mode in ("1", "L", "LA", "La", "I", "F") or picture.mode.startswith("I;16") or _is_deep_grey(picture))


def _is_deep_grey(picture: Image.Image) -> bool:
    """16 bits of grey with alpha, which Pillow opens as RGBA."""
    return _raw_mode(picture).startswith("LA;16")


def _flat(picture: Image.Image) -> tuple[Image.Image, Image.Image]:
    """The picture without transparency, in a mode of 8 bits; and the picture that tells how to turn it."""
    raw, mode, key = _raw_mode(picture), picture.mode, picture.info.get("transparency")
    if mode == "F" or (mode == "I" and picture.format not in ("PNG", "PPM")):
        # PIL would cut these off at 255.
        raise ValueError(f"its values are not 8 or 16 bits (mode {mode})")
    if ";16" in raw and not mode.startswith("I"):
        samples, picture = _deep(picture, raw)
        return _image(samples, raw.partition(";")[0], 2**16 - 1, key), picture
    if mode.startswith("I"):
        top = 2**12 - 1 if raw == "I;12" else 2**16 - 1
        samples = np.asarray(picture)[:, :, None].astype(np.float64)
        if getattr(picture, "tag_v2", {}).get(262) == 0:  # TIFF's 0 is white, which Pillow heeds in 8 bits only
            samples = top - samples
        return _image(samples, "L", top, key), picture
    if not picture.has_transparency_data or mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa"):
        return picture, picture
    if mode == "1":
        return _image(np.asarray(picture)[:, :, None] * 255.0, "L", 255, 255 * bool(key)), picture
    if mode in ("P", "PA"):
        return _image(np.asarray(picture.convert("RGBA")), "RGBA", 255, None), picture
    samples = np.asarray(picture).reshape(picture.height, picture.width, -1)
    return _image(samples, mode, 255, _scaled(key, raw)), picture


def _raw_mode(picture: Image.Image) -> str:
    """Pillow's raw mode for the picture's values; "" once they are read."""
    tiles = getattr(picture, "tile", None)
    arguments: Any = tiles[0][3] if tiles else ""
    raw = arguments[0] if isinstance(arguments, tuple | list) and arguments else arguments
    return raw if isinstance(raw, str) else ""


def _scaled(key: Any, raw: str) -> Any:
    """A transparent colour as values of 8 bits. A file has it in the bits of its pictures, of which the low ones count."""
    most = {"L;2": 3, "L;4": 15}.get(raw, 255)
    if isinstance(key, tuple):
        return tuple(value & most for value in key)
    return (key & most) * (255 // most) if isinstance(key, int) else None


def _deep(picture: Image.Image, raw: str) -> tuple[np.ndarray, Image.Image]:
    """Samples uint16 [H, W, C] of a picture that Pillow reads in 8 bits: it is read once for the high bytes, once for the low."""
    fp: Any = picture.fp  # type: ignore[attr-defined]
    fp.seek(0)
    data = fp.read()
    if raw.startswith("LA;16"):
        # Four bytes a pixel, which can be had as they are.
        read = _read_as(data, "RGBA")
        pixels = np.asarray(read).astype(np.uint16)
        return pixels[:, :, ::2] << 8 | pixels[:, :, 1::2], read
    raw = raw.replace("RGBa", "RGBA")  # else Pillow would divide by alpha
    high, low = (_read_as(data, name) for name in (raw, raw[:-1] + _OTHER_BYTE[raw[-1]]))
    return np.asarray(high).astype(np.uint16) << 8 | np.asarray(low), high


def _read_as(data: bytes, raw: str) -> Image.Image:
    picture: Any = Image.open(io.BytesIO(data))
    picture.tile = [(*tile[:3], (raw, *tile[3][1:]) if isinstance(tile[3], tuple | list) else raw) for tile in picture.tile]
    picture.load()
    read: Image.Image = picture
    return read


def _image(samples: np.ndarray, kind: str, top: int, key: Any) -> Image.Image:
    """Samples [H, W, C] from 0 to `top` on white, as a picture of 8 bits; `key` is the colour that is transparent.

    kind: what the channels are, as Pillow's modes call them; a small "a" is an alpha that the colours are multiplied by.
    """
    colours = {"L": 1, "LA": 1, "La": 1, "CMYK": 4}.get(kind, 3)
    colour, alpha = samples[:, :, :colours].astype(np.float64), None
    if kind in ("LA", "La", "RGBA", "RGBa"):
        alpha = samples[:, :, -1:].astype(np.float64)
    elif key is not None:
        alpha = np.where((colour == np.atleast_1d(key)).all(-1, keepdims=True), 0.0, float(top))
    if alpha is not None:
        colour = colour + (top - alpha) if kind.endswith("a") else (colour * alpha + top * (top - alpha)) / top
    values = np.rint(colour.clip(0, top) * (255 / top)).astype(np.uint8)
    mode = {1: "L", 3: "RGB", 4: "CMYK"}[colours]
    return Image.frombytes(mode, (values.shape[1], values.shape[0]), values.tobytes())
