"""The protocol of data sets: rows, from which `lodestar.data.source` makes pictures of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Protocol

import numpy as np
from PIL import Image


class Rows(Protocol):
    """The rows of a data set. Reads are by row, in any order, from any thread."""

    names: tuple[str, ...] | None
    """Class names by number; None where there are no labels."""
    labels: np.ndarray | None
    """Class numbers int64 [N], in range."""

    @property
    def channels(self) -> int | None:
        """1 or 3, where the form of the data says it; None where the pictures do, each by itself."""

    @property
    def packed(self) -> bool:
        """True if the pictures are in one file, much of which is read to look at each."""

    def __len__(self) -> int: ...

    def picture(self, index: int) -> Image.Image:
        """The picture, opened or decoded, as stored. Raises any exception when it cannot be."""

    def encoded(self, index: int) -> bytes:
        """The picture's file, untouched; PNG where it is in no file. Raises any exception when it cannot be read."""

    def where(self, index: int) -> str:
        """The row's name in a message."""

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """All indices once, in arrays [n] whose rows are cheap to read in any order; the arrays themselves in random order."""

    def fingerprint(self) -> str:
        """A text that differs where the pictures differ."""


class PartRows:
    """The rows of `rows` at `indices`, int64 [n], in that order, with their labels or without."""

    def __init__(self, rows: Rows, indices: np.ndarray, labelled: bool = True):
        self._rows, self._indices = rows, indices
        self.channels, self.packed = rows.channels, rows.packed
        self.names = rows.names if labelled else None
        self.labels = rows.labels[indices] if labelled and rows.labels is not None else None

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
