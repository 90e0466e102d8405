"""Captions beside the files of pictures: in a table of their folder, or in a text of each picture's own name.

Tables are those of Hugging Face's ImageFolder: the column "file_name" and others. Texts of the pictures' names are those of
webdataset's tars, and of folders for fine-tuning: ``0001.jpg`` with ``0001.txt``, a caption on each line, or with ``0001.json``.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from lodestar.config import Problem, from_json, shown
from lodestar.data.captions import CAPTION, TextColumns, Texts, text_columns, utf8
from lodestar.data.columns import Asked
from lodestar.files import reading

TABLES = ("metadata.csv", "metadata.jsonl", "captions.csv", "captions.jsonl")
"""Names of tables of captions."""
_FILE = ("file_name", "filename", "file", "image")
"""Columns of such a table that name the picture."""


class Beside:
    """The texts beside the pictures of a folder or archive."""

    def __init__(self, files: Iterable[str], read: Callable[[str], bytes], spec: str, asked: Asked):
        """files: the paths of all files. read: gives a file's contents. Raises Problem for a table that cannot be understood."""
        self._read, self._spec, self._asked, self._there = read, spec, asked, frozenset(files)
        self._listed: dict[str, tuple[TextColumns, dict[str, list[Any]]]] = {}
        """Columns and cells by the path of a picture; a picture with several rows has several cells in each column."""
        self.tables = [path for path in sorted(self._there) if posixpath.basename(path) in TABLES]
        for path in self.tables:
            self._add(path)

    def used(self, pictures: Collection[str]) -> set[str]:
        """The files that hold texts of the pictures. Raises Problem if there are none."""
        own = {_stem(path) + end for path in pictures for end in (".txt", ".json")} & self._there
        if pictures and not own and not self.tables:
            raise Problem(
                f"{self._spec} has no captions: neither a file of each picture's name, such as {_stem(min(pictures))}.txt, "
                f"nor a table {', '.join(TABLES)}"
            )
        return {*own, *self.tables}

    def texts(self, path: str) -> Texts:
        """The texts of the picture at a path. Raises any exception."""
        if path in self._listed:
            columns, cells = self._listed[path]
            return columns.read(cells)
        text, told = f"{_stem(path)}.txt", f"{_stem(path)}.json"
        plain = self._asked.caption is None and self._asked.style is None
        if text in self._there and (plain or told not in self._there):
            return TextColumns((CAPTION,)).read({CAPTION: utf8(self._read(text)).splitlines()})
        if told in self._there:
            cells = from_json(self._read(told))
            if not isinstance(cells, dict):
                raise ValueError(f"{told} holds no object with a caption")
            columns = _columns(cells, told, self._asked)
            return columns.read(cells)
        raise ValueError(f"there is no {posixpath.basename(text)}" + (f", and no row in {self.tables[0]}" if self.tables else ""))

    def _add(self, path: str) -> None:
        """Read a table."""
        where = f"{path} in {self._spec}"
        with reading(where):
            # What is no UTF-8 is told of its row, when that is read.
            text = self._read(path).decode("utf-8-sig", errors="surrogateescape")
            rows = list(_objects(text) if path.endswith(".jsonl") else csv.DictReader(io.StringIO(text, newline="")))
            names = dict.fromkeys(name for row in rows for name in row if isinstance(name, str))
            file = next((name for name in _FILE if name in names), None)
            if file is None:
                raise ValueError(f"it has no column {_FILE[0]!r}; the columns are {', '.join(names)}")
        columns = _columns({name: None for name in names if name != file}, where, self._asked)
        for row in rows:
            name = posixpath.normpath(posixpath.join(posixpath.dirname(path), str(row.get(file))))
            _, cells = self._listed.setdefault(name, (columns, {column: [] for column in columns.all}))
            for column in columns.all:
                if (cell := row.get(column)) not in cells[column]:
                    cells[column].append(cell)


def _columns(features: Mapping[str, Any], where: str, asked: Asked) -> TextColumns:
    columns = text_columns(features, where, asked)
    assert columns is not None, "texts are asked for"
    return columns


def _objects(text: str) -> Iterable[dict[str, Any]]:
    """The objects of a file of JSON lines. Raises ValueError."""
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                found = from_json(line)
            except ValueError as error:
                raise ValueError(f"line {number} is no JSON: {error}") from None
            if not isinstance(found, dict):
                raise ValueError(f"line {number} is {shown(found)}, and no object")
            yield found


def _stem(path: str) -> str:
    return posixpath.splitext(path)[0]
