"""Pictures to edit: what they are read from, in which size, and what is said of those that cannot be."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.data.pictures import read_pictures


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three pictures of different sizes."""
    for number, size in enumerate([(16, 16), (30, 20), (8, 8)]):
        Image.effect_noise(size, 90).convert("RGB").save(tmp_path / f"{number}.png")
    return tmp_path


def test_files_and_folders_are_resized_and_cropped_as_for_training(folder: Path) -> None:
    read = read_pictures([folder / "1.png", folder], 3, (8, 8))
    assert [Path(picture.name).name for picture in read] == ["1.png", "0.png", "1.png", "2.png"]
    assert [picture.size for picture in read] == [(20, 30), (16, 16), (20, 30), (8, 8)]
    source = open_source(str(folder), size=(8, 8))
    for number in range(3):
        assert np.array_equal(read[1 + number].image, source[number][0])
    assert read_pictures([folder], 1, (8, 8))[0].image.shape == (1, 8, 8)


def test_some_of_them_may_be_chosen(folder: Path) -> None:
    names = [Path(picture.name).name for picture in read_pictures([folder], 3, (8, 8), [2, 0])]
    assert names == ["2.png", "0.png"]
    with pytest.raises(Problem, match="picture 3: there are 0 to 2 of them"):
        read_pictures([folder], 3, (8, 8), [3])


def test_what_cannot_be_read_is_named(folder: Path) -> None:
    (folder / "text.png").write_text("hello")
    (folder / "cut.png").write_bytes((folder / "1.png").read_bytes()[:300])
    with pytest.raises(Problem, match=r"text\.png cannot be decoded: it is not a picture in a known format$"):
        read_pictures([folder / "text.png"], 3, (8, 8))
    with pytest.raises(Problem, match=r"cut\.png cannot be decoded"):
        read_pictures([folder / "cut.png"], 3, (8, 8))
    with pytest.raises(Problem, match=r"no picture '.*tetx\.png'; did you mean 'text\.png'\?"):
        read_pictures([folder / "tetx.png"], 3, (8, 8))
    with pytest.raises(Problem, match="no data"):
        read_pictures([folder / "nothing"], 3, (8, 8))
