from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from lodestar.config import Problem, decode
from lodestar.data.colour import convert
from lodestar.data.transforms import Transforms, fit, to_array
from lodestar.training.run import DataConfig, Run

from .pictures import noise


def draws(transforms: Transforms, image: np.ndarray, count: int = 200) -> list[bytes]:
    return [transforms(image, np.random.default_rng(seed)).tobytes() for seed in range(count)]


def test_centre_crop_and_identity():
    image = to_array(Image.fromarray(noise(0, 6, 8)))
    rng = np.random.default_rng(0)
    assert image.shape == (3, 6, 8)
    np.testing.assert_array_equal(Transforms()(image, rng), image)
    np.testing.assert_array_equal(Transforms(size=4)(image, rng), image[:, 1:5, 2:6])
    np.testing.assert_array_equal(Transforms(size=(2, 8))(image, rng), image[:, 2:4])


def test_random_crop_reaches_every_window_and_nothing_else():
    image = to_array(Image.fromarray(noise(0, 5, 6)))
    windows = {image[:, top : top + 4, left : left + 4].tobytes() for top in range(2) for left in range(3)}
    assert set(draws(Transforms(size=4, crop="random"), image)) == windows


def test_flip_mirrors_half_of_them():
    image = to_array(Image.fromarray(noise(0)))
    results = draws(Transforms(flip=True), image)
    assert set(results) == {image.tobytes(), image[:, :, ::-1].tobytes()}
    assert 60 < results.count(image.tobytes()) < 140


def test_same_generator_same_result():
    image = to_array(Image.fromarray(noise(0, 12, 12)))
    transforms = Transforms(size=8, crop="random", flip=True)
    assert draws(transforms, image) == draws(transforms, image)


def test_sizes():
    assert Transforms().source_size is None
    assert Transforms(size=32).source_size == (32, 32)
    assert Transforms(size=224, crop="random").source_size == (256, 256)
    assert Transforms(size=(7, 14), crop="random").result_size((8, 16)) == (7, 14)
    assert decode(Transforms, '{"size": [4, 6], "flip": true}') == Transforms(size=(4, 6), flip=True)


def test_windows_of_whole_pictures():
    transforms = Transforms(size=4, crop="random", whole=(6, 8))
    assert (transforms.source_size, transforms.window, transforms.applied_size((6, 8))) == ((6, 8), (4, 4), (6, 8))
    assert Transforms(size=4, crop="random").window is None
    assert Transforms(size=4, crop="random").applied_size((5, 5)) == (4, 4)
    image = to_array(Image.fromarray(noise(0, 6, 8)))
    windows = {image[:, top : top + 4, left : left + 4].tobytes() for top in range(3) for left in range(5)}
    assert set(draws(transforms, image)) == windows
    with pytest.raises(Problem, match="whole is 8, and crop 'centre' leaves no window to choose"):
        Transforms(size=4, whole=8)
    with pytest.raises(Problem, match="3×9 are too small to crop to 4×4"):
        Transforms(size=4, crop="random", whole=(3, 9))
    with pytest.raises(Problem, match=r"data\.transforms\.whole is for upsamplers"):
        Run(data=DataConfig(transforms=transforms))


def test_impossible_settings():
    with pytest.raises(Problem, match="needs a size"):
        decode(Transforms, {"crop": "random"})
    with pytest.raises(Problem, match="size"):
        decode(Transforms, {"size": 0})
    with pytest.raises(Problem, match="did you mean 'centre'"):
        decode(Transforms, {"crop": "center", "size": 4})
    with pytest.raises(Problem, match="4×9 are too small to crop to 8×8"):
        Transforms(size=8).result_size((4, 9))


def test_fit_keeps_the_middle_and_the_aspect_ratio():
    bars = np.zeros((8, 24, 3), np.uint8)
    bars[:, 8:16] = 200
    middle = to_array(fit(Image.fromarray(bars), (4, 4)))
    assert (abs(middle[:, :, 1:3].astype(int) - 200) < 4).all() and (middle > 100).all()
    flat = Image.new("RGB", (50, 20), (10, 20, 30))
    assert (to_array(fit(flat, (8, 16))) == np.array([10, 20, 30])[:, None, None]).all()


def test_convert_grey_deep_and_turned_pictures():
    deep = Image.fromarray(np.full((2, 2), 257 * 100, np.uint16))
    assert (to_array(convert(deep, 3)) == 100).all()
    with pytest.raises(ValueError, match="mode F"):
        convert(Image.fromarray(np.zeros((2, 2), np.float32)), 3)

    turned, file = Image.fromarray(noise(0, 4, 6)), io.BytesIO()
    exif = turned.getexif()
    exif[274] = 6  # orientation: turn by 90° clockwise
    turned.save(file, "png", exif=exif)
    np.testing.assert_array_equal(to_array(convert(Image.open(file), 3)), np.rot90(noise(0, 4, 6), -1).transpose(2, 0, 1))


def test_half_transparent_is_half_white():
    picture = Image.new("LA", (2, 2), (0, 128))
    assert (to_array(convert(picture, 1)) == 127).all() and (to_array(convert(picture, 3)) == 127).all()
