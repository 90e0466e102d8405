"""The scenes as a data set: as many pictures as one likes, of which a source has the first million."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.data.captions import CAPTION, Reader, Texts
from lodestar.data.shapes.grammar import SHARES, USUAL, caption
from lodestar.data.shapes.render import render
from lodestar.data.shapes.scene import Scene, Split, scene
from lodestar.data.transforms import Size, pair, show, to_png

_COUNTS: dict[Split, int] = {"train": 1_000_000, "pairs": 1_000_000, "partial": 1_000_000, "test": 10_000, "held_out": 10_000}
SPLITS: dict[str, Split] = {"shapes": "train", **{f"shapes@{split}": split for split in _COUNTS}}
"""Names of the data sets."""
_SIZE = 32
"""Side of the pictures where none is asked for."""
_WORDS = 1
"""The use of randomness beside scenes."""


class ShapeRows:
    """Rendered scenes, of seed 0, in the size that is asked for, with a caption each."""

    channels = 3
    packed = False
    names: tuple[str, ...] | None = None
    labels: np.ndarray | None = None

    def __init__(self, split: Split, size: int | Size | None = None, captions: bool = False):
        """Raises Problem for a size that is no square."""
        height, width = pair(_SIZE if size is None else size)
        if height != width:
            raise Problem(f"shapes are square pictures: size {show((height, width))} (height×width) is none")
        self._split, self._size = split, width
        self._scene = lru_cache(maxsize=64)(self._drawn)
        self.texts: Reader | None = self._texts if captions else None

    def __len__(self) -> int:
        return _COUNTS[self._split]

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"scene {index} of shapes@{self._split}"

    def picture(self, index: int) -> Image.Image:
        return Image.fromarray(render(self._scene(index), self._size))

    def encoded(self, index: int) -> bytes:
        return to_png(self.picture(index))

    def fingerprint(self) -> str:
        digest = hashlib.sha256(f"{self._split} {self._size} {len(self)}".encode())
        for index in range(16):  # which a change of how scenes are made changes
            digest.update(render(self._scene(index), self._size).tobytes())
        return digest.hexdigest()

    def _drawn(self, index: int) -> Scene:
        return scene(0, index, self._split)

    def _texts(self, index: int) -> Texts:
        shares = SHARES.get(self._split, USUAL)
        return {CAPTION: caption(self._scene(index), np.random.default_rng((0, index, _WORDS)), shares)}
