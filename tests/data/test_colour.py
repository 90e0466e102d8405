"""Every form of a picture in 8 bits, beside plain arithmetic in fractions: modes, depths, transparency, orientation."""

from __future__ import annotations

import io
import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lodestar.config import Note, Problem
from lodestar.data import open_source
from lodestar.data.colour import convert, in_colour
from lodestar.data.mask import read_mask
from lodestar.data.pictures import read_pictures
from lodestar.data.transforms import to_array

HEIGHT, WIDTH = 4, 5
Pixel = tuple[Sequence[Fraction], Fraction]
"""Colours and alpha, 0 to 1."""


def white(pixel: Pixel) -> list[int]:
    """A pixel on white, in 8 bits."""
    colours, alpha = pixel
    return [round(255 * (colour * alpha + 1 - alpha)) for colour in colours]


def right(pixels: Sequence[Pixel], channels: int) -> np.ndarray:
    """The picture uint8 [C, H, W] of rows of pixels; colours in grey are ITU-R 601's, to one level."""
    values = np.array([white(pixel) for pixel in pixels], np.float64).reshape(HEIGHT, WIDTH, -1)
    if channels == 1 and values.shape[2] == 3:
        values = (values @ np.array([0.299, 0.587, 0.114]))[:, :, None]
    return np.repeat(values, channels // values.shape[2], 2).transpose(2, 0, 1)


def check(data: bytes | Image.Image, pixels: Sequence[Pixel], close: float = 0, turned: Callable = lambda array: array) -> None:
    """Compare what a file, or a picture in memory, becomes with what is right."""
    for channels in (1, 3):
        picture = data if isinstance(data, Image.Image) else Image.open(io.BytesIO(data))
        found = to_array(convert(picture, channels))
        expected = turned(right(pixels, channels))
        assert found.dtype == np.uint8
        assert found.shape == expected.shape
        exact = channels == 3 or len(pixels[0][0]) == 1
        assert np.abs(found - expected).max() <= (close if exact else 1 + close)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_png(
    samples: np.ndarray, depth: int, kind: int, key: Sequence[int] = (), palette: bytes = b"", alphas: bytes = b"",
    more: bytes = b"", filters: int = 0,
) -> bytes:  # fmt: skip
    """A PNG of samples [H, W, C] of `depth` bits, of colour type `kind`, by hand; `key` is the transparent colour."""
    height, width, _ = samples.shape
    rows = []
    for row in samples:
        bits = "".join(format(int(sample), f"0{depth}b") for sample in row.reshape(-1))
        rows.append(int(bits.ljust(-(-len(bits) // 8) * 8, "0"), 2).to_bytes(-(-len(bits) // 8), "big"))
    step = max(samples.shape[2] * depth // 8, 1)
    if filters:  # "Sub", which needs to know how long a pixel is
        rows = [bytes((row[k] - (row[k - step] if k >= step else 0)) % 256 for k in range(len(row))) for row in rows]
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + more + (chunk(b"PLTE", palette) if palette else b"")
    if key or alphas:
        chunks += chunk(b"tRNS", alphas or struct.pack(f">{len(key)}H", *key))
    packed = zlib.compress(b"".join(bytes([filters]) + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunks + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def samples_of(depth: int, channels: int, seed: int = 0) -> np.ndarray:
    """Values of all bits [H, W, C], the ends among them."""
    values = np.random.default_rng(seed).integers(0, 2**depth, (HEIGHT, WIDTH, channels))
    values[0, 0], values[0, 1], values[0, 2] = 0, 2**depth - 1, 2 ** (depth - 1)
    return values


def pixels_of(samples: np.ndarray, top: int, colours: int, key: Sequence[int] = ()) -> list[Pixel]:
    pixels: list[Pixel] = []
    for sample in samples.reshape(-1, samples.shape[2]).tolist():
        alpha = Fraction(sample[colours], top) if len(sample) > colours else Fraction(int(sample != list(key)))
        pixels.append(([Fraction(value, top) for value in sample[:colours]], alpha))
    return pixels


@pytest.mark.parametrize("filters", [0, 1])
@pytest.mark.parametrize("transparent", [False, True])
@pytest.mark.parametrize(("kind", "depth"), [(0, 1), (0, 2), (0, 4), (0, 8), (0, 16), (2, 8), (2, 16)])
def test_png_with_and_without_a_transparent_colour(kind: int, depth: int, transparent: bool, filters: int) -> None:
    samples = samples_of(depth, 3 if kind else 1)
    key = samples[1, 1].tolist() if transparent else []
    if transparent and depth == 16:
        samples[1, 2] = samples[1, 1] ^ 1  # differs in the last bit alone
    check(make_png(samples, depth, kind, key, filters=filters), pixels_of(samples, 2**depth - 1, samples.shape[2], key))


def test_of_a_transparent_colour_the_low_bits_count() -> None:
    """PNG: where it is of fewer than 16 bits, the others are to be ignored."""
    samples = samples_of(2, 1)
    check(make_png(samples, 2, 0, [0xFF00 | 2]), pixels_of(samples, 3, 1, [2]))
    samples = samples_of(8, 3)
    key = samples[1, 1].tolist()
    check(make_png(samples, 8, 2, [0xAB00 | value for value in key]), pixels_of(samples, 255, 3, key))


@pytest.mark.parametrize(("kind", "depth"), [(4, 8), (4, 16), (6, 8), (6, 16)])
@pytest.mark.parametrize("filters", [0, 1])
def test_png_with_alpha(kind: int, depth: int, filters: int) -> None:
    samples = samples_of(depth, 2 if kind == 4 else 4)
    check(make_png(samples, depth, kind, filters=filters), pixels_of(samples, 2**depth - 1, samples.shape[2] - 1))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
@pytest.mark.parametrize("alphas", [b"", b"\x00", b"\xff\x40", b"\x00\x80\xff\x07"])
def test_png_with_a_palette(depth: int, alphas: bytes) -> None:
    count, rng = min(2**depth, 40), np.random.default_rng(1)
    colours = rng.integers(0, 256, (count, 3))
    samples = np.random.default_rng(2).integers(0, count, (HEIGHT, WIDTH, 1))
    samples.reshape(-1)[:4] = np.arange(4) % count
    alpha = [*alphas, *[255] * count][:count]
    pixels: list[Pixel] = [
        ([Fraction(int(value), 255) for value in colours[index]], Fraction(alpha[index], 255)) for index in samples.reshape(-1)
    ]
    check(make_png(samples, depth, 3, palette=colours.astype(np.uint8).tobytes(), alphas=alphas[:count]), pixels)


TURNS: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda image: image,
    2: lambda image: image[:, :, ::-1],
    3: lambda image: image[:, ::-1, ::-1],
    4: lambda image: image[:, ::-1],
    5: lambda image: image.transpose(0, 2, 1),
    6: lambda image: np.rot90(image, -1, (1, 2)),
    7: lambda image: np.rot90(image, 2, (1, 2)).transpose(0, 2, 1),
    8: lambda image: np.rot90(image, 1, (1, 2)),
}
FORMS = [(0, 1), (0, 2), (0, 8), (0, 16), (2, 8), (2, 16), (4, 8), (4, 16), (6, 8), (6, 16)]


@pytest.mark.parametrize("orientation", TURNS)
@pytest.mark.parametrize(("kind", "depth"), FORMS)
def test_orientation(orientation: int, kind: int, depth: int) -> None:
    exif = b"MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01" + struct.pack(">HH", orientation, 0) + b"\0\0\0\0"
    samples = samples_of(depth, {0: 1, 2: 3, 4: 2, 6: 4}[kind])
    colours = samples.shape[2] - (kind >= 4)
    key = samples[2, 2].tolist() if kind < 4 else []
    data = make_png(samples, depth, kind, key, more=chunk(b"eXIf", exif))
    check(data, pixels_of(samples, 2**depth - 1, colours, key), turned=TURNS[orientation])


def make_tiff(
    samples: np.ndarray, order: str, photometric: int, extra: int | None = None, depth: int = 16, turn: int = 1
) -> bytes:
    """An uncompressed TIFF of samples [H, W, C] in byte order "<" or ">", by hand."""
    height, width, channels = samples.shape
    if depth == 12:
        bits = ["".join(format(int(value), "012b") for value in row.reshape(-1)) for row in samples]
        body = b"".join(int(row.ljust(-(-len(row) // 8) * 8, "0"), 2).to_bytes(-(-len(row) // 8), "big") for row in bits)
    else:
        body = samples.astype(f"{order}u{depth // 8}").tobytes()
    entries = [(256, width), (257, height), (258, depth), (259, 1), (262, photometric), (273, 8), (274, turn), (277, channels)]
    entries += [(278, height), (279, len(body))] + ([] if extra is None else [(338, extra)])
    start = 8 + len(body)
    start += start % 2
    arrays = start + 2 + 12 * len(entries) + 4
    directory = struct.pack(f"{order}H", len(entries))
    for tag, value in entries:
        if tag == 258 and channels > 2:
            directory += struct.pack(f"{order}HHII", tag, 3, channels, arrays)
        elif tag == 258 and channels == 2:
            directory += struct.pack(f"{order}HHIHH", tag, 3, 2, value, value)
        else:
            directory += struct.pack(f"{order}HHIHH", tag, 3, 1, value, 0)
    tail = struct.pack(f"{order}{channels}H", *[depth] * channels)
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", start) + body.ljust(start - 8, b"\0") + directory + b"\0\0\0\0" + tail


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("turn", [1, 6])
def test_tiff_of_16_bits(order: str, turn: int) -> None:
    grey, colours, four = (samples_of(16, channels) for channels in (1, 3, 4))
    top = 2**16 - 1
    check(make_tiff(grey, order, 1, turn=turn), pixels_of(grey, top, 1), turned=TURNS[turn])
    check(make_tiff(colours, order, 2, turn=turn), pixels_of(colours, top, 3), turned=TURNS[turn])
    check(make_tiff(four, order, 2, extra=2, turn=turn), pixels_of(four, top, 3), turned=TURNS[turn])
    check(make_tiff(four, order, 2, extra=0, turn=turn), pixels_of(four[:, :, :3], top, 3), turned=TURNS[turn])
    four[:, :, :3] = four[:, :, :3] * four[:, :, 3:] // top  # colours that alpha has been multiplied into
    pixels: list[Pixel] = [
        ([Fraction(value + top - alpha, top) for value in sample], Fraction(1)) for *sample, alpha in four.reshape(-1, 4).tolist()
    ]
    check(make_tiff(four, order, 2, extra=1, turn=turn), pixels, turned=TURNS[turn])


def test_other_depths_of_tiff() -> None:
    for turn in TURNS:  # Pillow turns a TIFF itself
        samples = samples_of(8, 3)
        check(make_tiff(samples, "<", 2, depth=8, turn=turn), pixels_of(samples, 255, 3), turned=TURNS[turn])
    white_is_zero = samples_of(16, 1)
    check(make_tiff(white_is_zero, "<", 0), pixels_of(2**16 - 1 - white_is_zero, 2**16 - 1, 1))
    twelve = samples_of(12, 1)
    check(make_tiff(twelve, "<", 1, depth=12), pixels_of(twelve, 2**12 - 1, 1))
    file = io.BytesIO()
    deep = samples_of(16, 1)
    Image.fromarray(deep[:, :, 0].astype(np.uint16)).save(file, "TIFF", compression="tiff_lzw")
    check(file.getvalue(), pixels_of(deep, 2**16 - 1, 1))


@pytest.mark.parametrize("most", [255, 65535, 1000])
def test_netpbm(most: int) -> None:
    """Its values have a largest of their own."""
    for magic, channels in (("P5", 1), ("P6", 3)):
        samples = np.minimum(samples_of(16, channels), most)
        body = samples.astype(">u2" if most > 255 else np.uint8).tobytes()
        # Pillow rounds them to its own 8 or 16 bits first.
        check(f"{magic} {WIDTH} {HEIGHT} {most}\n".encode() + body, pixels_of(samples, most, channels), close=int(most == 1000))


def modes(mode: str, samples: np.ndarray) -> Image.Image:
    return Image.frombytes(mode, (WIDTH, HEIGHT), samples.astype(np.uint8).tobytes())


def premultiplied(samples: np.ndarray) -> list[Pixel]:
    return [
        ([Fraction(value + 255 - alpha, 255) for value in sample], Fraction(1))
        for *sample, alpha in samples.reshape(-1, samples.shape[2]).tolist()
    ]


def test_modes_in_memory() -> None:
    one, two, three, four = (samples_of(8, channels) for channels in (1, 2, 3, 4))
    check(modes("L", one), pixels_of(one, 255, 1))
    check(modes("L", one).point(lambda value: 255 * (value > 99)).convert("1"), pixels_of(one > 99, 1, 1))
    check(modes("RGB", three), pixels_of(three, 255, 3))
    check(modes("RGBX", four), pixels_of(four[:, :, :3], 255, 3))
    check(modes("RGBA", four), pixels_of(four, 255, 3))
    four[:, :, :3] = four[:, :, :3] * four[:, :, 3:] // 255
    check(modes("RGBa", four), premultiplied(four))
    check(Image.merge("LA", [modes("L", each) for each in two.transpose(2, 0, 1)]), pixels_of(two, 255, 1))
    two[:, :, :1] = two[:, :, :1] * two[:, :, 1:] // 255
    la = Image.merge("LA", [modes("L", each) for each in two.transpose(2, 0, 1)])
    check(la.convert("LA").convert("La"), premultiplied(np.asarray(la.convert("La"))))
    pa = Image.new("PA", (WIDTH, HEIGHT))
    pa.putpalette(bytes(range(30)) * 10)
    pa.putdata([(int(index) % 10, int(alpha)) for index, alpha in samples_of(8, 2, 5).reshape(-1, 2)])
    pixels = [
        ([Fraction(3 * index + k, 255) for k in range(3)], Fraction(alpha, 255))
        for index, alpha in np.asarray(pa).reshape(-1, 2).tolist()
    ]
    check(pa, pixels)


def test_other_colour_models_in_memory() -> None:
    cmyk = samples_of(8, 4)
    pixels: list[Pixel] = [
        ([Fraction((255 - ink) * (255 - black), 255**2) for ink in inks], Fraction(1))
        for *inks, black in cmyk.reshape(-1, 4).tolist()
    ]
    check(modes("CMYK", cmyk), pixels)
    luma = samples_of(8, 3)
    pixels = []
    for y, cb, cr in luma.reshape(-1, 3).tolist():
        rgb = (y + 1.402 * (cr - 128), y - 0.344136 * (cb - 128) - 0.714136 * (cr - 128), y + 1.772 * (cb - 128))
        pixels.append(([Fraction(min(max(value, 0), 255)) / 255 for value in rgb], Fraction(1)))
    assert np.abs(to_array(convert(modes("YCbCr", luma), 3)) - right(pixels, 3)).max() <= 1
    assert np.abs(to_array(convert(modes("YCbCr", luma), 1))[0] - luma[:, :, 0]).max() == 0
    hues = modes("HSV", np.broadcast_to([0, 255, 200], (HEIGHT, WIDTH, 3)))
    assert to_array(convert(hues, 3))[:, 0, 0].tolist() == [200, 0, 0]
    assert to_array(convert(hues, 1))[0, 0, 0] == 60
    lightness = modes("LAB", np.broadcast_to([255, 0, 0], (HEIGHT, WIDTH, 3)))
    for channels in (1, 3):
        assert np.abs(to_array(convert(lightness, channels)).astype(int) - 255).max() <= 1


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I;16N"])
def test_deep_greys_in_memory(mode: str) -> None:
    samples = samples_of(16, 1)
    order = {"I;16B": ">u2", "I;16N": "=u2"}.get(mode, "<u2")
    picture = Image.frombytes(mode, (WIDTH, HEIGHT), samples.astype(order).tobytes())
    check(picture, pixels_of(samples, 2**16 - 1, 1))


def test_values_without_a_range_are_refused() -> None:
    for mode in ("I", "F"):
        for channels in (1, 3):
            with pytest.raises(ValueError, match=rf"its values are not 8 or 16 bits \(mode {mode}\)"):
                convert(Image.new(mode, (2, 2)), channels)


def test_a_gif_with_a_transparent_colour() -> None:
    indices = samples_of(2, 1)
    picture = modes("P", indices)
    picture.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 100, 110, 120])
    file = io.BytesIO()
    picture.save(file, "GIF", transparency=2)
    pixels: list[Pixel] = [
        ([Fraction(30 * index + 10 * (k + 1), 255) for k in range(3)], Fraction(int(index != 2)))
        for index in indices.reshape(-1).tolist()
    ]
    check(file.getvalue(), pixels)


def test_what_counts_as_colour() -> None:
    grey = [make_png(samples_of(depth, channels), depth, kind) for kind, depth, channels in
            ((0, 1, 1), (0, 2, 1), (0, 16, 1), (4, 8, 2), (4, 16, 2))]  # fmt: skip
    colour = [make_png(samples_of(depth, channels), depth, kind) for kind, depth, channels in
              ((2, 8, 3), (2, 16, 3), (6, 8, 4), (6, 16, 4))]  # fmt: skip
    palette = bytes(itertools.chain(*((k, k, k) for k in range(3)), (9, 8, 7)))
    for samples, into in ((samples_of(2, 1), colour), (samples_of(2, 1) % 3, grey)):
        into.append(make_png(samples, 2, 3, palette=palette))  # the colour in the palette is seen, or is not
    assert [in_colour(Image.open(io.BytesIO(data))) for data in grey] == [False] * 6
    assert [in_colour(Image.open(io.BytesIO(data))) for data in colour] == [True] * 5


def test_data_pictures_to_edit_and_masks_are_read_so(tmp_path: Path) -> None:
    """16 bits of grey, of which some is transparent."""
    samples = samples_of(16, 1)
    key = samples[1, 1].tolist()
    path = tmp_path / "a.png"
    path.write_bytes(make_png(samples, 16, 0, key))
    expected = right(pixels_of(samples, 2**16 - 1, 1, key), 1)
    assert 0 < (expected == 255).sum() < expected.size / 2
    assert np.array_equal(open_source(str(tmp_path))[0][0], expected)
    (picture,) = read_pictures([path], 1, (HEIGHT, WIDTH))
    assert np.array_equal(picture.image, expected)
    # What is transparent is white in a picture, and black in a mask: it was not painted.
    opaque = np.any(samples != np.array(key), axis=-1)
    with pytest.warns(Note, match="transparent"):
        assert np.array_equal(read_mask(path, (HEIGHT, WIDTH), ()), (expected[0] >= 128) & opaque)


def test_a_pipe_to_edit_is_refused(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "pipe.png")
    tried: list[Callable[[Any], Any]] = [lambda path: read_pictures([path], 3, (4, 4)), lambda path: read_mask(path, (4, 4), ())]
    for read in tried:
        with pytest.raises(Problem, match=r"pipe.png cannot be decoded: it is no regular file"):
            read(tmp_path / "pipe.png")
