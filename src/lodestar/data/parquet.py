"""Pictures in a parquet file of the Hugging Face `datasets` form: encoded files in a struct{bytes, path}, labels by number.

Read through pyarrow, row group by row group, rather than through `datasets`, which would first write the whole file out
again as an uncompressed copy in its cache.
"""

from __future__ import annotations

import io
import json
import threading
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from lodestar.config import Problem, from_json, nearest, shown
from lodestar.data.captions import Reader, Texts, text_columns
from lodestar.data.columns import Asked, class_names, image_column, read_labels
from lodestar.extras import need
from lodestar.files import atomic, reading, sha256

HELD_BYTES = 256 * 2**20
"""Bytes of a file (uncompressed) held at once, and shuffled as one window."""
_LARGEST_GROUP_BYTES = 1024 * 2**20
_GROUP_ROWS, _GROUP_BYTES = 1_000, 64 * 2**20
"""A row group that is written ends at so many pictures, or bytes of them."""


class ParquetRows:
    """The rows of a parquet file; at most `HELD_BYTES`, or one larger row group, are in memory."""

    channels = None
    packed = True

    def __init__(self, path: Path, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        self._path, self._spec, self._lock = path, spec, threading.Lock()
        with reading(spec, "cannot be read as parquet"):
            self._file = need("pyarrow.parquet").ParquetFile(path)
            features = self._features = _features(self._file.schema_arrow)
        self._columns = text_columns(features, spec, asked)
        told = self._columns.all if self._columns else ()
        self.texts: Reader | None = self._texts if self._columns else None
        self._image = image_column(features, spec, asked, told)
        self._needed = list(dict.fromkeys((self._image, *told)))
        kind = self._file.schema_arrow.field(self._image).type
        if not _holds_pictures(kind):
            raise Problem(f"{spec}: column {self._image!r} is {kind}, and pictures are a struct of bytes (binary) and path")
        self._starts, self._bytes = self._groups()
        self.names, self.labels = read_labels(features, spec, asked, self._column)
        self._held: OrderedDict[int, Any] = OrderedDict()

    def _groups(self) -> tuple[np.ndarray, list[int]]:
        """Where the row groups begin, and the last ends, and how many bytes each has. Raises Problem for what cannot be."""
        metadata = self._file.metadata
        groups = [metadata.row_group(group) for group in range(metadata.num_row_groups)]
        for number, group in enumerate(groups):
            if group.total_byte_size > _LARGEST_GROUP_BYTES:
                raise Problem(
                    f"{self._spec}: row group {number} is {group.total_byte_size / 2**30:.1f} GiB, at most 1 GiB can be read: "
                    "write the file with row groups of about 1,000 pictures"
                )
            # Of a picture there is a byte at least.
            if not 0 <= group.num_rows <= self._path.stat().st_size:
                raise Problem(f"{self._spec} is damaged: row group {number} has {group.num_rows:,} rows, of more than is there")
        return np.cumsum([0, *(group.num_rows for group in groups)]), [group.total_byte_size for group in groups]

    def __len__(self) -> int:
        return int(self._starts[-1])

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        """The rows, window by window: row groups in random order, as many to a window as can be held at once."""
        window: list[np.ndarray] = []
        held = 0
        for group in rng.permutation(len(self._bytes)):
            if window and held + self._bytes[group] > HELD_BYTES:
                yield np.concatenate(window)
                window, held = [], 0
            window.append(np.arange(self._starts[group], self._starts[group + 1]))
            held += self._bytes[group]
        if window:
            yield np.concatenate(window)

    def where(self, index: int) -> str:
        return f"row {index} of {self._spec}"

    def picture(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded(index)))

    def encoded(self, index: int) -> bytes:
        cell = self._cell(self._image, index)
        data: bytes | None = cell and cell["bytes"]
        if not data:
            raise ValueError("it holds no bytes")
        return data

    def fingerprint(self) -> str:
        with reading(self._spec):
            return f"{sha256(self._path)} {self._image}"

    def column(self, column: str) -> list[Any]:
        """The cells of a column, of classes by their names. Raises Problem."""
        if column not in self._features:
            columns = ", ".join(self._features)
            raise Problem(f"{self._spec}: no column {column!r}; the columns are {columns}{nearest(column, self._features)}")
        names = class_names(self._features, column)
        known = dict(enumerate(names or ()))
        return [known.get(cell, cell) if isinstance(cell, int) else cell for cell in self._column(column)]

    def styles(self) -> Sequence[str | None]:
        told = self._columns
        return () if told is None or told.style is None else told.styles(self._column(told.style))

    def _texts(self, index: int) -> Texts:
        assert self._columns is not None
        return self._columns.read({column: self._cell(column, index) for column in self._columns.all})

    def _cell(self, column: str, index: int) -> Any:
        group = int(np.searchsorted(self._starts, index, side="right")) - 1
        return self._group(group)[column][index - int(self._starts[group])].as_py()

    def _group(self, group: int) -> Mapping[str, Any]:
        """The needed columns of a row group, from those held or from the file."""
        with self._lock:
            if group not in self._held:
                while self._held and sum(self._bytes[held] for held in self._held) + self._bytes[group] > HELD_BYTES:
                    self._held.popitem(last=False)
                self._held[group] = self._read(group, self._needed)
            self._held.move_to_end(group)
            held: Mapping[str, Any] = self._held[group]
            return held

    def _column(self, column: str) -> Iterator[Any]:
        for group in range(self._file.metadata.num_row_groups):
            yield from self._read(group, [column])[column].to_pylist()

    def _read(self, group: int, columns: Sequence[str]) -> dict[str, Any]:
        """Columns of a row group, each as one array."""
        with reading(f"row group {group} of {self._spec}"):
            table = self._file.read_row_group(group, columns=list(columns), use_threads=False)
            if len(table) != self._starts[group + 1] - self._starts[group]:
                raise ValueError(f"it has {len(table):,} rows, and others are told")
            return {column: table[column].combine_chunks() for column in columns}


def write_parquet(path: Path, pictures: Iterable[tuple[bytes, int]], names: Sequence[str]) -> None:
    """Write encoded pictures with their class numbers in the form that is read here, atomically and a row group at a time.

    Raises Problem when it cannot be written.
    """
    pa, pq = need("pyarrow"), need("pyarrow.parquet")
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": list(names)}}
    kinds = [("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])), ("label", pa.int64())]
    schema = pa.schema(kinds, {"huggingface": json.dumps({"info": {"features": features}})})
    with atomic(path) as file, pq.ParquetWriter(file, schema) as writer:
        group: list[dict[str, Any]] = []
        held = 0
        for data, label in pictures:
            group.append({"image": {"bytes": data, "path": None}, "label": label})
            held += len(data)
            if len(group) == _GROUP_ROWS or held > _GROUP_BYTES:
                writer.write_table(pa.Table.from_pylist(group, schema))
                group, held = [], 0
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema))


def _features(schema: Any) -> dict[str, Any]:
    """The file's own description of its columns, or, where it has none, what their types tell. Raises ValueError."""
    types = need("pyarrow").types
    told: Any = from_json((schema.metadata or {}).get(b"huggingface", b"{}"))
    for part in ("info", "features"):
        told = told.get(part) if isinstance(told, dict) else told
        told = {} if told is None else told
    if not isinstance(told, dict):
        raise ValueError(f"the features in its description are {shown(told)}, and not an object of columns")

    def guess(kind: Any) -> str:
        return "Image" if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else "Value"

    return {field.name: told.get(field.name) or {"_type": guess(field.type)} for field in schema}


def _holds_pictures(kind: Any) -> bool:
    """Whether a column's type is one of pictures."""
    types = need("pyarrow").types
    index = kind.get_field_index("bytes") if types.is_struct(kind) else -1
    return index >= 0 and kind.field(index).type in (need("pyarrow").binary(), need("pyarrow").large_binary())
