"""Masks: which places of a model are filled in, of masks of any mode and size, and what is told of what is lost."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from lodestar.config import Note, Problem
from lodestar.data.mask import read_mask
from lodestar.data.pictures import Picture
from lodestar.data.transforms import fit, to_array


def picture(height: int, width: int) -> Picture:
    return Picture("a", np.zeros((3, 1, 1), np.uint8), (height, width), None)


def read(path: Path, size: tuple[int, int], *notes: str) -> np.ndarray:
    """The mask, of which exactly these notes are told."""
    with Image.open(path) as whole, warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        mask = read_mask(path, size, [picture(whole.height, whole.width)])
        assert np.array_equal(mask, read_mask(whole, size, [picture(whole.height, whole.width)])), "PIL's as its file"
    told = told[: len(told) // 2]
    assert len(told) == len(notes), [str(each.message) for each in told]
    for each, note in zip(told, notes, strict=True):
        assert each.category is Note and note in str(each.message)
    assert mask.dtype == bool and mask.shape == size
    return mask


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "mask.png"


def test_thin_lines_are_filled_in_as_any_white_is(path: Path) -> None:
    """Of a 512×512 mask every place of a 32×32 model that has white in it; black there is told."""
    mask = Image.new("L", (512, 512), 0)
    draw = ImageDraw.Draw(mask)
    draw.line((256, 0, 256, 511), fill=255, width=6)
    draw.rectangle((0, 0, 127, 127), fill=255)
    draw.point((400, 300), fill=255)
    mask.save(path)
    expected = np.asarray(mask).reshape(32, 16, 32, 16).max((1, 3)) > 0
    assert expected.sum() == 64 + 64 + 1
    assert np.array_equal(read(path, (32, 32), "65 of the 129 places that are filled in are partly black"), expected)


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (12, 4), (32, 48), (40, 64)])
@pytest.mark.parametrize("shape", [(30, 20), (21, 33), (16, 16)])
def test_a_place_is_filled_in_where_any_pixel_that_it_covers_is_white(
    path: Path, shape: tuple[int, int], size: tuple[int, int]
) -> None:
    """By exact fractions, of the same crop as the picture's, larger or smaller than the mask."""
    pixels = np.random.default_rng(0).random(shape) < 0.05
    Image.fromarray(pixels.astype(np.uint8) * 255).save(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mask = read_mask(path, size, [picture(*shape)])
    step = min(shape[0] / size[0], shape[1] / size[1])
    for row, column in np.ndindex(*size):
        (top, bottom), (left, right) = (
            ((length - step * count) / 2 + step * place, (length - step * count) / 2 + step * (place + 1))
            for length, count, place in ((shape[0], size[0], row), (shape[1], size[1], column))
        )
        # A little inside of the place, so that an edge that is a pixel's own is not crossed.
        rows = slice(int(np.floor(top + 1e-4)), int(np.ceil(bottom - 1e-4)))
        assert mask[row, column] == pixels[rows, int(np.floor(left + 1e-4)) : int(np.ceil(right - 1e-4))].any()


def test_a_mask_is_where_its_picture_is_after_the_crop(path: Path) -> None:
    """What is made of a white square, resized as pictures are, is within the places that are filled in."""
    whole = Image.new("L", (33, 21), 0)
    whole.paste(255, (12, 6, 20, 15))
    whole.save(path)
    mask = read(path, (8, 8), "are partly black")
    shown = to_array(fit(whole, (8, 8)))[0]
    assert mask[shown > 140].all() and not mask[shown == 0].any()


def test_a_mask_of_the_models_size_is_taken_as_it_is_and_greys_from_half_on_are_white(path: Path) -> None:
    Image.fromarray(np.array([[0, 15], [128, 255]], np.uint8)).save(path)
    assert read(path, (2, 2)).tolist() == [[False, False], [True, True]]
    Image.fromarray(np.array([[0, 127], [128, 255]], np.uint8)).save(path)
    assert read(path, (2, 2), "1 places are grey and kept: white begins at 128 of 255").tolist() == [[False, False], [True, True]]


PAINTED = np.array([[False, True], [True, False], [False, False]])
"""What every mode below says."""


def painted(mode: str) -> Image.Image:
    white, black = np.where(PAINTED, 255, 0).astype(np.uint8), np.zeros_like(PAINTED, np.uint8)
    match mode:
        case "1":
            return Image.fromarray(white).convert("1")
        case "L" | "RGB" | "CMYK":
            return Image.fromarray(white).convert(mode)
        case "16 bits":
            return Image.fromarray(np.where(PAINTED, 32768, 200).astype(np.uint16))
        case "LA" | "RGBA":  # opaque
            return Image.fromarray(white).convert(mode)
        case "P":
            palette = Image.fromarray(np.where(PAINTED, 3, 7).astype(np.uint8), "P")
            palette.putpalette([0] * 9 + [255] * 3 + [9] * 12)
            return palette
        case "white on nothing":
            return Image.fromarray(np.stack([np.full_like(white, 255)] * 3 + [white], axis=-1), "RGBA")
        case "white and black on nothing":
            return Image.fromarray(
                np.stack([white, np.where(PAINTED, 255, np.arange(6).reshape(3, 2) * 50)], -1).astype(np.uint8), "LA"
            )
        case _:  # "half of white on nothing"
            return Image.fromarray(np.stack([black + 255, white // 2 + PAINTED], axis=-1).astype(np.uint8), "LA")


OPAQUE, CLEAR = ("1", "L", "RGB", "CMYK", "16 bits", "LA", "RGBA", "P"), (
    "white on nothing", "white and black on nothing", "half of white on nothing",
)  # fmt: skip


@pytest.mark.parametrize("mode", [*OPAQUE, *CLEAR])
def test_masks_of_every_mode_say_the_same(tmp_path: Path, mode: str) -> None:
    path = tmp_path / ("mask.tif" if mode == "CMYK" else "mask.png")
    painted(mode).save(path)
    notes = ("what is transparent in it counts as black and is kept",) if mode in CLEAR else ()
    assert np.array_equal(read(path, (3, 2), *notes), PAINTED)


@pytest.mark.parametrize(("mode", "transparent"), [("16 bits", 200), ("L", 0), ("P", 7), ("RGB", (0, 0, 0))])
def test_a_transparent_value_is_black(path: Path, mode: str, transparent: int) -> None:
    painted(mode).save(path, transparency=transparent)
    assert np.array_equal(read(path, (3, 2), "what is transparent"), PAINTED)
    white = {"16 bits": 32768, "L": 255, "P": 3, "RGB": (255, 255, 255)}[mode]
    painted(mode).save(path, transparency=white)
    with pytest.warns(Note), pytest.raises(Problem, match=r"nothing is masked: .* its brightest value is"):
        read_mask(path, (3, 2), ())


def test_a_mask_is_turned_as_its_picture_is(path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(np.where(PAINTED, 255, 0).astype(np.uint8)).save(path, exif=exif)
    assert np.array_equal(read_mask(path, (2, 3), ()), np.rot90(PAINTED, -1))


def test_noise_of_a_jpeg_file_is_no_colour_and_a_colour_is_refused(tmp_path: Path) -> None:
    mask = Image.new("RGB", (64, 64))
    mask.paste("white", (16, 16, 48, 48))
    mask.save(tmp_path / "mask.jpg")
    assert read(tmp_path / "mask.jpg", (64, 64))[20:44, 20:44].all()
    mask.paste("red", (0, 0, 5, 2))
    mask.save(tmp_path / "mask.png")
    with pytest.raises(Problem, match="has colours in 10 of its 4096 pixels: white is filled in and black is kept"):
        read_mask(tmp_path / "mask.png", (64, 64), ())


def test_what_is_white_nowhere_or_cropped_away_is_told(path: Path) -> None:
    Image.new("L", (8, 8), 1).save(path)
    with pytest.raises(Problem, match=r"nothing is masked: .*, and its brightest value is 1 of 255, and white begins at 128"):
        read_mask(path, (8, 8), ())
    mask = Image.new("L", (24, 8), 0)
    mask.paste(255, (0, 0, 4, 8))
    mask.save(path)
    with pytest.raises(Problem, match=r"nothing is masked: .* all of its white is cropped away with the picture's edges"):
        read_mask(path, (8, 8), [picture(8, 24)])
    mask.paste(255, (12, 0, 14, 8))
    mask.save(path)
    assert read(path, (8, 8), "some of its white is cropped away with the picture's edges").sum() == 16


def test_a_mask_of_another_size_is_refused(path: Path) -> None:
    Image.new("L", (9, 7), 255).save(path)
    with pytest.raises(Problem, match=r"is 7×9: it has to be of the picture's size \(20×30\) or of the model's \(8×8"):
        read_mask(path, (8, 8), [picture(20, 30)])
    # Nor does it fit pictures of several sizes, though it is as large as one of them.
    Image.new("L", (30, 20), 255).save(path)
    with pytest.raises(Problem, match=r"\(8×8, 20×30\)"):
        read_mask(path, (8, 8), [picture(20, 30), picture(8, 8)])
    with pytest.raises(Problem, match="no picture"):
        read_mask(path.parent / "missing.png", (8, 8), ())
