"""A source of pictures: what ``--data`` names, whichever kind it is, as a sequence of (uint8 [C,H,W], label)."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
from PIL import Image

from lodestar.config import Problem, first_line, nearest
from lodestar.data.archive import ZipRows
from lodestar.data.arrays import digits
from lodestar.data.batch import Row
from lodestar.data.folder import FolderRows
from lodestar.data.hub import HubRows, load
from lodestar.data.npz import NpzRows
from lodestar.data.parquet import ParquetRows
from lodestar.data.transforms import Size, convert, fit, pair, show, to_array

_KEPT_BYTES = 256 * 2**20
"""A data set whose decoded pictures need no more than this is decoded once; a larger one every epoch."""


class Rows(Protocol):
    """What each kind of source supplies. Reads are by row, in any order, from any thread."""

    names: tuple[str, ...] | None
    """Class names by number; None where there are no labels."""
    labels: np.ndarray | None
    """Class numbers int64 [N], in range."""

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


_PACKED: dict[str, Callable[[Path, str], Rows]] = {".npz": NpzRows, ".zip": ZipRows}
"""What opens a file of pictures, by the end of its name; every other is a table."""


class Source:
    """Pictures of one size and channel count, by index, with their labels where they have them.

    Memory does not grow with the data set, but for a file name or eight bytes a picture.
    """

    def __init__(self, rows: Rows, spec: str, *, channels: int = 3, size: int | Size | None = None, skip_bad: bool = False):
        if channels not in (1, 3):
            raise Problem(f"channels is {channels}: choose from 1 (grey), 3 (RGB)")
        if not len(rows):
            raise Problem(f"{spec} is empty: it holds no pictures")
        self.spec, self.rows, self.names, self.channels, self.skip_bad = spec, rows, rows.names, channels, skip_bad
        self.bad: dict[int, str] = {}
        """Why a picture could not be decoded, by index, of those met so far; only with `skip_bad`."""
        self._fit = size is not None
        self.size: Size = (0, 0)
        """(height, width) of every picture."""
        self.size = pair(size) if size is not None else self._first_size()
        assert min(self.size) >= 1
        shape = (len(rows), channels, *self.size)
        self._kept = np.empty(shape, np.uint8) if np.prod(shape, dtype=np.int64) <= _KEPT_BYTES else None
        self._is_kept = np.zeros(len(rows), bool)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> tuple[np.ndarray, int | None]:
        """Picture uint8 [C,H,W] (not to be written to) and label at `index`.

        With `skip_bad`, the next one that can be decoded stands in for one that cannot. Raises Problem naming the picture.
        """
        for candidate in range(index, index + len(self)):
            image = self.image(candidate % len(self))
            if image is not None:
                return image, self.label(candidate % len(self))
        raise Problem(f"{self.spec}: none of the {len(self)} pictures can be decoded ({self.bad[index]})")

    def image(self, index: int) -> np.ndarray | None:
        """Picture uint8 [C,H,W] (not to be written to) at `index`; None where it is bad and `skip_bad`. Raises Problem."""
        if self._kept is not None and self._is_kept[index]:
            return self._kept[index]
        picture = self._decode(index)
        if picture is None:
            return None
        if self._fit:
            picture = fit(picture, self.size)
        elif _size(picture) != self.size:
            first = f"{self.rows.where(self._first)} is {show(self.size)}"
            other = f"{self.rows.where(index)} is {show(_size(picture))} (height×width)"
            raise Problem(
                f"{self.spec} holds pictures of different sizes, and no size to bring them to is given: {first}, {other}"
            )
        image = to_array(picture)
        if self._kept is not None:
            self._kept[index] = image
            self._is_kept[index] = True
        return image

    def row(self, index: int) -> Row | None:
        """Picture and, where there are labels, class by the names of their fields; None where the picture is bad and `skip_bad`.

        Raises Problem.
        """
        image, label = self.image(index), self.label(index)
        if image is None:
            return None
        return {"image": image} if label is None else {"image": image, "label": label}

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """See `Rows`."""
        return self.rows.windows(rng)

    def label(self, index: int) -> int | None:
        """Class number at `index`; None where there are no labels."""
        return None if self.rows.labels is None else int(self.rows.labels[index])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the pictures and labels are made of: changes when they do."""
        digest = hashlib.sha256(f"{self.rows.fingerprint()} {self.channels} {self._fit} {self.size} {self.names}".encode())
        if self.rows.labels is not None:
            digest.update(self.rows.labels.tobytes())
        return digest.hexdigest()

    def _first_size(self) -> Size:
        for index in range(len(self)):
            picture = self._decode(index)
            if picture is not None:
                self._first = index
                return _size(picture)
        raise Problem(f"{self.spec}: none of the {len(self)} pictures can be decoded ({self.bad[0]})")

    def _decode(self, index: int) -> Image.Image | None:
        """The picture in the channels asked for; None where it is bad and `skip_bad`. Raises Problem."""
        if index in self.bad:
            return None
        try:
            return convert(self.rows.picture(index), self.channels)
        except (Problem, MemoryError):
            raise
        # PIL's readers raise whatever a broken file makes them meet: OSError, SyntaxError, struct.error, ...
        except Exception as error:
            why = f"{self.rows.where(index)} cannot be decoded: {reason(error)}"
            if not self.skip_bad:
                raise Problem(f"{why} (--skip-bad leaves such pictures out)") from error
            self.bad[index] = why
            return None


def open_source(
    spec: str,
    *,
    size: int | Size | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    skip_bad: bool = False,
) -> Source:
    """Open what ``--data`` names: ``digits``, a .parquet, .npz or .zip file, a folder (by class, or not), a data set of the hub.

    The hub's are written ``owner/name`` where there is no such path, or ``hf:name``; a split other than ``train`` comes after an
    @, as in ``owner/name@test``. The columns are the tables'. `size`, one number or (height, width), is what every picture is
    resized and cropped to; without it they must agree. `channels` is 1 or 3, by default 1 for digits and 3 for others. Raises
    Problem.
    """
    path = Path(spec).expanduser()
    name, _, split = spec.removeprefix("hf:").partition("@")
    hub = spec.startswith("hf:") or _is_hub_name(name)
    packed = _PACKED.get(path.suffix) if path.is_file() else None
    table = hub or (path.is_file() and spec != "digits" and packed is None)
    if (image_column or label_column) and not table:
        raise Problem(
            f"column {image_column or label_column!r}: {spec} has no columns, only parquet files and data sets of the hub have"
        )
    rows: Rows
    if spec == "digits":
        rows = digits()
    elif hub:
        rows = HubRows(load(name, split or "train", spec), spec, image_column, label_column)
    elif path.is_dir():
        rows = FolderRows(path, spec)
    elif packed is not None:
        rows = packed(path, spec)
    elif path.is_file():
        rows = ParquetRows(path, spec, image_column, label_column)
    else:
        raise _no_such(path, spec)
    channels = channels if channels is not None else 1 if spec == "digits" else 3
    return Source(rows, spec, channels=channels, size=size, skip_bad=skip_bad)


def _is_hub_name(name: str) -> bool:
    """Two words with a slash that are no path, nor look like a misspelt one."""
    path = Path(name)
    return (
        bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not path.parent.exists() and path.suffix not in (".parquet", *_PACKED)
    )


def _no_such(path: Path, spec: str) -> Problem:
    beside = path.parent
    hub = "a data set of the hub as owner/name or owner/name@split"
    allowed = f"a .parquet, .npz or .zip file, a folder of pictures, 'digits', or {hub}"
    if not beside.is_dir():
        return Problem(f"no folder {str(beside)!r}, so no data {spec!r}: give {allowed}")
    guess = nearest(path.name, [*(entry.name for entry in beside.iterdir()), *(["digits"] if spec == path.name else [])])
    return Problem(f"no data {spec!r}: give {allowed}{guess}")


def _size(picture: Image.Image) -> Size:
    return picture.height, picture.width


def reason(error: Exception) -> str:
    """Why a picture cannot be decoded, from what its reader raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture in a known format"
    return first_line(error)
