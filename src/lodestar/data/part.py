"""Some of a source's pictures as a source of their own: those to train on, and those to hold out."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.data.source import Rows, Source
from lodestar.data.transforms import Size


class PartRows:
    """The rows of `rows` at `indices`, int64 [n], in that order."""

    def __init__(self, rows: Rows, indices: np.ndarray):
        self._rows, self._indices, self.names = rows, indices, rows.names
        self.labels = None if rows.labels is None else rows.labels[indices]

    def __len__(self) -> int:
        return len(self._indices)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        place = np.full(len(self._rows), -1)
        place[self._indices] = np.arange(len(self))
        for window in self._rows.windows(rng):
            yield place[window][place[window] >= 0]

    def where(self, index: int) -> str:
        return self._rows.where(int(self._indices[index]))

    def picture(self, index: int) -> Image.Image:
        return self._rows.picture(int(self._indices[index]))

    def encoded(self, index: int) -> bytes:
        return self._rows.encoded(int(self._indices[index]))

    def fingerprint(self) -> str:
        return hashlib.sha256(self._rows.fingerprint().encode() + self._indices.tobytes()).hexdigest()


def part(source: Source, indices: np.ndarray, size: Size | None) -> Source:
    """The pictures of a source at `indices`, resized and cropped to `size`; without it they must agree. Raises Problem."""
    return Source(PartRows(source.rows, indices), source.spec, channels=source.channels, size=size, skip_bad=source.skip_bad)


def divide(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` pictures to train on, and, a `share` in (0, 1) of them, to hold out: at random, the same every time.

    Both ascend. Raises Problem if none would be left to train on.
    """
    held_out = max(round(share * count), 1)
    if held_out == count:
        raise Problem(f"data.held_out is {share}: of {count} pictures that leaves none to train on")
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
