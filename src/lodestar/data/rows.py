"""The protocol of data sets: rows, from which `lodestar.data.source` makes pictures of one size."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from PIL import Image

from lodestar.data.captions import Reader, Texts
from lodestar.data.classes import numbered


class Rows(Protocol):
    """The rows of a data set. Reads are by row, in any order, from any thread."""

    names: tuple[str, ...] | None
    """Class names by number; None where there are no labels."""
    labels: np.ndarray | None
    """Class numbers int64 [N], in range."""
    texts: Reader | None
    """A row's texts; None where none are asked for, or there are none."""

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


@runtime_checkable
class Styled(Protocol):
    """Rows of a table, which may have a column of styles."""

    def styles(self) -> Sequence[str | None]:
        """The style of each row, read without the pictures; empty where no styles are asked for."""


class PartRows:
    """The rows of `rows` at `indices`, int64 [n], in that order, with their labels or without."""

    def __init__(self, rows: Rows, indices: np.ndarray, labelled: bool = True):
        self._rows, self._indices = rows, indices
        self.channels, self.packed = rows.channels, rows.packed
        self.names = rows.names if labelled else None
        self.labels = rows.labels[indices] if labelled and rows.labels is not None else None
        self.texts: Reader | None = None if (texts := rows.texts) is None else lambda index: texts(int(indices[index]))

    def __len__(self) -> int:
        return len(self._indices)

    def styles(self) -> Sequence[str | None]:
        styles = self._rows.styles() if isinstance(self._rows, Styled) else ()
        return [styles[index] for index in self._indices.tolist()] if styles else ()

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


class JoinedRows:
    """The rows of several data sets one after another, such as the shards of a large one; classes go by name."""

    packed = True

    def __init__(self, parts: Sequence[Rows]):
        self._parts = parts
        self._starts = np.cumsum([0, *map(len, parts)])
        channels = {part.channels for part in parts}
        self.channels = channels.pop() if len(channels) == 1 else None
        self.names, self.labels = self._classes()
        self.texts: Reader | None = self._texts if all(part.texts is not None for part in parts) else None

    def _classes(self) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
        kinds: list[str] = []
        for part in self._parts:
            if part.names is None or part.labels is None:
                return None, None
            kinds += [part.names[label] for label in part.labels]
        return numbered(kinds)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """Part by part, so that large ones are read one after another."""
        for number in rng.permutation(len(self._parts)):
            for window in self._parts[number].windows(rng):
                yield self._starts[number] + window

    def _at(self, index: int) -> tuple[Rows, int]:
        number = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._parts[number], index - int(self._starts[number])

    def _texts(self, index: int) -> Texts:
        part, place = self._at(index)
        assert part.texts is not None
        return part.texts(place)

    def where(self, index: int) -> str:
        part, place = self._at(index)
        return part.where(place)

    def picture(self, index: int) -> Image.Image:
        part, place = self._at(index)
        return part.picture(place)

    def encoded(self, index: int) -> bytes:
        part, place = self._at(index)
        return part.encoded(place)

    def fingerprint(self) -> str:
        return hashlib.sha256("\n".join(part.fingerprint() for part in self._parts).encode()).hexdigest()
