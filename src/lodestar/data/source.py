"""A source of pictures: what ``--data`` names, whichever kind it is, as a sequence of (uint8 [C,H,W], label)."""

from __future__ import annotations

import copy
import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
from PIL import Image

from lodestar.config import Problem, nearest, shown
from lodestar.data.archive import TARS, TarRows, ZipRows
from lodestar.data.arrays import digits
from lodestar.data.batch import Row, good_row
from lodestar.data.captions import STYLE, Reader, Texts
from lodestar.data.channels import stored_channels
from lodestar.data.colour import convert
from lodestar.data.columns import Asked
from lodestar.data.folder import FolderRows
from lodestar.data.hub import HubRows, load
from lodestar.data.npz import NpzRows
from lodestar.data.objects import ObjectRows
from lodestar.data.parquet import ParquetRows
from lodestar.data.remote import RemoteTarRows, addresses, copied, is_address
from lodestar.data.rows import JoinedRows, PartRows, Rows, Styled
from lodestar.data.selection import selected, shards
from lodestar.data.shapes import SPLITS, ShapeRows
from lodestar.data.transforms import Size, fit, pair, show, to_array
from lodestar.files import reading, regular
from lodestar.progress import progress

_KEPT_BYTES = 256 * 2**20
"""A data set whose decoded pictures need no more than this is decoded once; a larger one every epoch."""


_MADE = ("digits", *SPLITS)
"""Names of the data sets that need no file."""
T = TypeVar("T")


class Pictures(Protocol):
    """Pictures of Python's own, by number: what PyTorch calls a map-style data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


NAMED: dict[str, Callable[[], Any]] = {}
"""Makers of data sets of Python, `Pictures` or a `datasets.Dataset`, by the names under which ``--data`` finds them."""

_FILES: dict[str, Callable[[Path, str, Asked], Rows]] = {
    ".parquet": ParquetRows,
    ".npz": NpzRows,
    ".zip": ZipRows,
    **dict.fromkeys(TARS, TarRows),
}
"""Openers of files of pictures, by the end of the name; other files are tables."""


class Source:
    """Pictures of one size and channel count, by index, with their labels where they have them.

    Memory does not grow with the data set, but for a file name or eight bytes a picture.
    """

    def __init__(
        self, rows: Rows, spec: str, *, channels: int | None = None, size: int | Size | None = None, skip_bad: bool = False
    ):
        """channels: 1 or 3, to convert to; None: as the pictures are stored (`stored_channels`). size: see `open_source`."""
        if channels not in (1, 3, None):
            raise Problem(f"channels is {channels}: choose from 1 (grey), 3 (RGB)")
        if not len(rows):
            raise Problem(f"{spec} is empty: it holds no pictures")
        for name in rows.names or ():
            if name.encode(errors="ignore").decode() != name:
                raise Problem(f"{spec}: class {shown(name)} is no text that can be written (UTF-8): give it another name")
        channels = channels or stored_channels(rows, spec)
        self.spec, self.rows, self.names, self.channels, self.skip_bad = spec, rows, rows.names, channels, skip_bad
        self.captioned = rows.texts is not None
        """Whether rows have texts."""
        self.instead: Mapping[str, np.ndarray] = {}
        """Fields [N, ...] in the place of the pictures, of the first N rows, such as embeddings or codes; NaN, or numbers below 0
        among whole ones, in a row that is bad."""
        self.bad: dict[int, str] = {}
        """Why a picture could not be decoded, by index, of those met so far; only with `skip_bad`."""
        self.fits = size is not None
        """Whether pictures are resized and cropped."""
        self.size: Size = (0, 0)
        """(height, width) of every picture."""
        self.size = pair(size) if size is not None else self._first_size()
        assert min(self.size) >= 1
        shape = (len(rows), channels, *self.size)
        self._kept = np.empty(shape, np.uint8) if np.prod(shape, dtype=np.int64) <= _KEPT_BYTES else None
        self._is_kept = np.zeros(len(rows), bool)

    def __len__(self) -> int:
        return min(map(len, self.instead.values()), default=len(self.rows))

    def told(self, **fields: np.ndarray) -> Source:
        """The source's first rows with fields [N, ...] in the place of their pictures; see `instead`."""
        source = copy.copy(self)
        source.instead = fields
        return source

    @cached_property
    def styles(self) -> tuple[str, ...]:
        """The styles of the pictures, where they are asked for, in alphabetical order; tables are read without their pictures."""
        styles = self.rows.styles() if isinstance(self.rows, Styled) else ()
        return tuple(sorted({style for style in styles or self._styles_by_row() if style is not None}))

    def _styles_by_row(self) -> Iterator[str | None]:
        """The style of each row that is no table's, unless the first says that none is asked for; None where it is bad."""
        for index in range(len(self) if self.rows.texts is not None else 0):
            texts = _texts_at(self.rows.texts, index)
            if index == 0 and texts is not None and STYLE not in texts:
                return
            style = (texts or {}).get(STYLE)
            yield style if isinstance(style, str) else None

    def __getitem__(self, index: int) -> tuple[np.ndarray, int | None]:
        """Picture uint8 [C,H,W] (not to be written to) and label at `index`.

        With `skip_bad`, the next good picture stands in for a bad one. Raises Problem naming the picture.
        """
        row = good_row(self, index)
        return row["image"], row.get("label")

    def image(self, index: int) -> np.ndarray | None:
        """Picture uint8 [C,H,W] (not to be written to) at `index`; None where it is bad and `skip_bad`. Raises Problem."""
        if self._kept is not None and self._is_kept[index]:
            kept: np.ndarray = self._kept[index]
            return kept
        picture = self._decode(index)
        if picture is None:
            return None
        if self.fits:
            picture = fit(picture, self.size)
        elif _size(picture) != self.size:
            first = f"{self.rows.where(self._first)} is {show(self.size)}"
            other = f"{self.rows.where(index)} is {show(_size(picture))} (height×width)"
            raise Problem(
                f"{self.spec} holds pictures of different sizes, and no size to bring them to is given "
                f"(--size, data.transforms.size in training): {first}, {other}"
            )
        image = to_array(picture)
        if self._kept is not None:
            self._kept[index] = image
            self._is_kept[index] = True
        return image

    def row(self, index: int) -> Row | None:
        """Picture and, where there are such, class and texts by the names of their fields; None where it is bad and `skip_bad`.

        Raises Problem.
        """
        texts = self.texts(index)
        if texts is None:
            return None
        label = self.label(index)
        others = {**({} if label is None else {"label": label}), **texts}
        if self.instead:
            values = {name: field[index] for name, field in self.instead.items()}
            return None if any(map(_bad, values.values())) else {**values, **others}
        image = self.image(index)
        return None if image is None else {"image": image, **others}

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """See `Rows`."""
        return [np.arange(len(self))] if self.instead else self.rows.windows(rng)

    def label(self, index: int) -> int | None:
        """Class number at `index`; None where there are no labels."""
        return None if self.rows.labels is None else int(self.rows.labels[index])

    @property
    def pictured(self) -> str:
        """SHA-256 of what the pictures alone are made of."""
        return hashlib.sha256(f"{self.rows.fingerprint()} {self.channels} {self.fits} {self.size}".encode()).hexdigest()

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the pictures and labels are made of: changes when they do."""
        digest = hashlib.sha256(f"{self.rows.fingerprint()} {self.channels} {self.fits} {self.size} {self.names}".encode())
        if self.rows.labels is not None:
            digest.update(self.rows.labels.tobytes())
        for index in range(len(self)) if self.captioned else ():
            digest.update(f"{self.texts(index)}".encode())
        return digest.hexdigest()

    def _first_size(self) -> Size:
        for index in range(len(self)):
            picture = self._decode(index)
            if picture is not None:
                self._first = index
                return _size(picture)
        raise AssertionError("where all are bad, the last of them has raised")

    def _decode(self, index: int) -> Image.Image | None:
        """The picture in the channels asked for; None where it is bad and `skip_bad`. Raises Problem."""
        if index in self.bad:
            return None
        return self._good(index, "cannot be decoded", lambda: convert(self.rows.picture(index), self.channels))

    def texts(self, index: int) -> Texts | None:
        """The texts of a row, none where none are asked for; None where they are bad and `skip_bad`. Raises Problem."""
        texts = self.rows.texts
        if texts is None:
            return {}
        return None if index in self.bad else self._good(index, "has no caption that can be read", lambda: texts(index))

    def _good(self, index: int, failure: str, read: Callable[[], T]) -> T | None:
        """What is read of a row; None, and the reason kept, where it is bad and `skip_bad`. Raises Problem."""
        hint = "" if self.skip_bad else " (--skip-bad leaves such pictures out)"
        try:
            with reading(self.rows.where(index), failure, hint):
                return read()
        except Problem as problem:
            if not self.skip_bad:
                raise
            self.bad[index] = str(problem)
            if len(self.bad) == len(self):
                raise Problem(f"{self.spec}: none of the {len(self):,} pictures can be read ({problem})") from None
            return None


def _bad(values: np.ndarray) -> bool:
    """True for the mark of a row that is bad."""
    return bool((np.isnan(values) if values.dtype.kind == "f" else values < 0).any())


def open_source(
    spec: str | Path | Source | Pictures,
    *,
    size: int | Size | None = None,
    channels: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    labels: bool | None = True,
    captions: bool = False,
    caption_column: str | None = None,
    style_column: str | None = None,
    skip_bad: bool = False,
) -> Source:
    """Open what ``--data`` names, or pictures that are there in Python, for training or to compare with.

    spec: an address (``s3://…``, see `lodestar.data.remote`), or
    ``digits``, ``shapes``, a .parquet, .npz, .zip or tar file, tars by a pattern (``{00..31}.tar``, ``shard-*.tar``), a
    folder (by class, or not), a data set of the hub: ``owner/name`` where there is no such path, or ``hf:name``; a split other
    than ``train`` comes after an @, as in ``owner/name@test``. After the @ of a parquet file comes a value of its column "split",
    or others as in ``t.parquet@train,style!=openmoji``. Or an object: a `datasets.Dataset`, read as stored; any object with
    ``__len__`` and ``__getitem__``, whose items are pictures, pairs (picture, label or caption) or dicts of ``image``, ``label``
    and ``caption``; or a `Source`, returned unchanged unless other settings are given. A picture is a PIL one, an array [H, W] or
    [H, W, C] or a tensor [H, W] or [C, H, W], C = 1 to 4, uint8, uint16, or floats in [0, 1]; a label is a whole number, a name
    or None. An item is the same at every access: random changes belong to `Transforms`.

    size: a number or (height, width), to which every picture is resized and cropped; without it all must agree. channels: 1 or 3,
    to convert to; by default 1 where all pictures are stored as grey, and 3 where any is in colour. The columns are the tables'.
    labels: False leaves classes out, unread; None reads them where they can be read. captions: read the captions too, of tables
    (caption_column: their columns, with commas and patterns, such as "caption*"; default "caption" or "text") and beside files
    (`lodestar.data.beside`). style_column: a column of texts or classes, read as the field "style" and as a word of every second
    caption. skip_bad: leave out pictures that cannot be decoded, or have no caption. Files that are no pictures, and columns that
    are not read, are named in a `lodestar.config.Note`. Raises Problem.
    """
    asked = Asked(image_column, label_column, labels, captions or caption_column is not None, caption_column, style_column)
    if isinstance(spec, Source):
        return _again(spec, size, channels, asked, skip_bad)
    rows, name = (_named(str(spec), asked, size), str(spec)) if isinstance(spec, str | Path) else _given(spec, asked)
    _check_captions(rows.texts is not None, name, asked)
    return Source(rows, name, channels=channels, size=size, skip_bad=skip_bad)


def _again(source: Source, size: int | Size | None, channels: int | None, asked: Asked, skip_bad: bool) -> Source:
    """The source, or one of the same pictures in another size or other channels, or without labels."""
    _no_columns(source.spec, asked)
    _check_captions(source.captioned, source.spec, asked)
    if asked.style is not None and not source.styles:
        raise Problem(f"style_column {asked.style!r}: {source.spec} is open already, and was opened without a column of styles")
    unlabelled = asked.labels is False and source.names is not None
    if size is None and channels in (None, source.channels) and skip_bad <= source.skip_bad and not unlabelled:
        return source
    rows = PartRows(source.rows, np.arange(len(source)), labelled=False) if unlabelled else source.rows
    size = size if size is not None else source.size if source.fits else None
    skip_bad = skip_bad or source.skip_bad
    return Source(rows, source.spec, channels=channels or source.channels, size=size, skip_bad=skip_bad)


def _check_captions(captioned: bool, spec: str, asked: Asked) -> None:
    if (asked.captions or asked.style is not None) and not captioned:
        raise Problem(
            f"{spec} has no captions: they are in columns of a table (parquet, the hub), in files beside pictures, or in "
            "items of a data set in Python; a source that is open already was opened with captions=True, or has none"
        )


def _given(data: Pictures, asked: Asked) -> tuple[Rows, str]:
    """The rows of an object, and what it is called."""
    package, name = type(data).__module__.partition(".")[0], type(data).__name__
    name = name if package in ("builtins", "__main__") else f"{package}.{name}"
    if name.startswith("datasets."):
        if name != "datasets.Dataset":
            splits = ", ".join(map(repr, data)) if isinstance(data, Mapping) else ""
            which = f"take one of its splits ({splits})" if splits else "its pictures have no numbers"
            raise Problem(f"{name} is no data set that can be read at random: {which}")
        return HubRows(data, name, asked), name
    if not (hasattr(data, "__len__") and hasattr(data, "__getitem__")) or isinstance(data, Mapping | bytes):
        raise Problem(f"{name} is no data set: give a path, or an object with __len__ and __getitem__, such as a torch Dataset")
    return ObjectRows(data, name, asked), name


def _named(spec: str, asked: Asked, size: int | Size | None) -> Rows:
    """The rows of what ``--data`` names. Raises Problem."""
    if is_address(spec):
        return _remote(spec, asked)
    if spec in NAMED:
        return _given(NAMED[spec](), asked)[0]
    name, _, split = spec.removeprefix("hf:").partition("@")
    if spec.startswith("hf:") or _is_hub_name(name):
        return HubRows(load(name, split or "train", spec), spec, asked)
    with reading(spec):
        path = Path(spec).expanduser()
        reader = _FILES.get(ending(path), ParquetRows) if path.is_file() else FolderRows if path.is_dir() else None
        if reader is None and path.exists():
            regular(path)
        table, _, told = spec.rpartition("@")
        if reader is None and table and (whole := Path(table).expanduser()).is_file() and ending(whole) in (".parquet", ""):
            return selected(ParquetRows(whole, spec, asked), told, spec)
    if spec in _MADE or reader is not ParquetRows:
        _no_columns(spec, asked, (asked.caption or asked.style) if spec in _MADE else None)
    if reader is None and (parts := shards(spec)):
        return _joined(parts, spec, asked)
    if spec == "digits":
        return digits(asked)
    if spec in SPLITS:
        return ShapeRows(SPLITS[spec], size, asked.captions)
    if reader is None:
        raise _no_such(path, spec)
    return reader(path, spec, asked)


def _remote(spec: str, asked: Asked) -> Rows:
    """The rows of what is at an address. Raises Problem."""
    urls = addresses(spec)
    paths = [Path(url) for url in urls]
    if len(urls) > 1 or ending(paths[0]) in TARS:
        _no_columns(spec, asked)
        return _joined(paths, spec, asked, urls)
    return _FILES.get(ending(paths[0]), ParquetRows)(copied(urls[0]), spec, asked)


def _joined(parts: Sequence[Path], spec: str, asked: Asked, urls: Sequence[str] = ()) -> Rows:
    """The rows of several archives as those of one; urls: their addresses, where they are elsewhere."""
    for path in parts:
        if ending(path) not in (".zip", *TARS):
            raise Problem(f"{spec}: {path} is no archive: a pattern names shards that are tar or zip files")
    opened: list[Rows] = []
    with progress(f"shards of {spec}", len(parts)) as done:
        for number, path in enumerate(parts):
            if urls and ending(path) != ".zip":
                opened.append(RemoteTarRows(path, urls[number], asked))
            else:
                opened.append(_FILES[ending(path)](copied(urls[number]) if urls else path, str(path), asked))
            done(number + 1)
    return JoinedRows(opened)


def ending(path: Path) -> str:
    """The end of a file's name by which it is known to hold pictures, in lower case; "" for another."""
    return next((end for end in sorted(_FILES, key=len, reverse=True) if path.name.lower().endswith(end)), "")


def _no_columns(spec: str, asked: Asked, texts: str | None = None) -> None:
    """Raise Problem where a column is asked for by name, of pictures or labels, or of texts where there are none either."""
    if column := asked.image or asked.label or texts:
        raise Problem(
            f"column {column!r}: {spec} has no columns, only parquet files and data sets of the hub have: leave it out (null)"
        )


def _is_hub_name(name: str) -> bool:
    """Two words with a slash that are no path, nor look like a misspelt one."""
    path = Path(name)
    return bool(re.fullmatch(r"\w[\w.-]*/[\w.-]+", name)) and not path.parent.exists() and not ending(path)


def _no_such(path: Path, spec: str) -> Problem:
    beside = path.parent
    hub = "a data set of the hub as owner/name or owner/name@split"
    allowed = f"a .parquet, .npz, .zip or .tar file, a folder of pictures, 'digits', 'shapes', or {hub}"
    if not beside.is_dir():
        return Problem(f"no folder {str(beside)!r}, so no data {spec!r}: give {allowed}")
    guess = nearest(path.name, [*(entry.name for entry in beside.iterdir()), *([*_MADE, *NAMED] if spec == path.name else [])])
    return Problem(f"no data {spec!r}: give {allowed}{guess}")


def _texts_at(texts: Reader | None, index: int) -> Texts | None:
    """The texts of a row; None where they are missing, or are none, as is told when the row is read."""
    try:
        return None if texts is None else texts(index)
    except Exception:
        return None


def _size(picture: Image.Image) -> Size:
    return picture.height, picture.width
