"""Captions of pictures: columns of a table, or texts beside the files of pictures."""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from lodestar.config import Problem, nearest, shown
from lodestar.data.columns import Asked, Features, class_names

Texts = Mapping[str, str | tuple[str, ...]]
"""A row's texts by the name of their field: a single text, or several, of which each pass of training draws one."""
Reader = Callable[[int], Texts]
"""The texts of a row. Raises any exception where texts are missing, or are none."""

CAPTION, STYLE = "caption", "style"
"""The fields of a batch."""
USUAL = ("caption", "text")
"""Names of a column of captions that need not be named."""


def styled(caption: str, style: str) -> str:
    """A caption with a style behind it, "red apple, twemoji": in training every second one, and in prompts where asked for."""
    return f"{caption}, {style}"


@dataclass(frozen=True)
class TextColumns:
    """The columns of a table that hold texts."""

    captions: tuple[str, ...]
    style: str | None = None
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Names of the classes of a column of class numbers."""

    @property
    def all(self) -> tuple[str, ...]:
        """The names of all columns."""
        return tuple(dict.fromkeys((*self.captions, *filter(None, [self.style]))))

    def read(self, row: Mapping[str, Any]) -> Texts:
        """The texts of a row, given its cells by column. Raises ValueError."""
        found: dict[str, str | tuple[str, ...]] = {}
        styles = () if self.style is None else (self.style_of(row),)
        if styles:
            found[STYLE] = styles[0]
        if self.captions:
            captions = tuple(text for column in self.captions for text in self._cell(row, column))
            if not captions:
                raise ValueError(f"nothing is in {', '.join(self.captions)}")
            found[CAPTION] = captions + tuple(styled(caption, style) for style in styles for caption in captions)
        return found

    def style_of(self, row: Mapping[str, Any]) -> str:
        """The style of a row, given its cells by column. Raises ValueError."""
        assert self.style is not None, "a column is asked for"
        styles = self._cell(row, self.style)
        if len(styles) != 1:
            raise ValueError(f"column {self.style!r} holds {len(styles)} styles")
        return styles[0]

    def styles(self, cells: Iterable[Any]) -> list[str | None]:
        """The style of each row, given the cells of its column; None where there is none, as the row tells when it is read."""
        assert self.style is not None, "a column is asked for"
        found: list[str | None] = []
        for cell in cells:
            try:
                found.append(self.style_of({self.style: cell}))
            except ValueError:
                found.append(None)
        return found

    def _cell(self, row: Mapping[str, Any], column: str) -> tuple[str, ...]:
        cell, names = row.get(column), self.names.get(column)
        if names is not None and isinstance(cell, int):
            if not 0 <= cell < len(names):
                raise ValueError(f"class {cell} in column {column!r}, of {len(names)}")
            cell = names[cell]
        return tuple(_texts(cell, column))


def text_columns(features: Features, spec: str, asked: Asked) -> TextColumns | None:
    """The columns of captions and of the style as far as they are asked for; None where neither is. Raises Problem.

    Captions are in the columns asked for by name, of which there may be several with commas between them and patterns such as
    ``caption_*``, or else in "caption" or "text".
    """
    if not asked.captions and asked.style is None:
        return None
    columns: list[str] = []
    for wanted in [each.strip() for each in asked.caption.split(",")] if asked.captions and asked.caption else ():
        found = [name for name in features if name == wanted or fnmatch.fnmatchcase(name, wanted)]
        columns += found or [_known(wanted, "caption", features, spec)]
    if asked.captions and not columns:
        columns = [name for name in USUAL if name in features][:1] or [_known(USUAL[0], "caption", features, spec)]
    style = None if asked.style is None else _known(asked.style, "style", features, spec)
    read = [*columns, *([] if style is None else [style])]
    names = {name: told for name in read if (told := class_names(features, name)) is not None}
    return TextColumns(tuple(dict.fromkeys(columns)), style, names)


def _known(column: str, what: str, features: Features, spec: str) -> str:
    if column not in features:
        there = f"the columns are {', '.join(features)}{nearest(column, features)}"
        raise Problem(f"{spec}: no column of {what}s {column!r}; {there} ({what}_column names another)")
    return column


def _texts(cell: Any, column: str) -> Iterator[str]:
    """The texts of a cell, which may hold a list of them, without blanks around them. Raises ValueError."""
    if isinstance(cell, list | tuple):
        for each in cell:
            yield from _texts(each, column)
    elif isinstance(cell, str | bytes):
        if text := utf8(cell).strip():
            yield text
    elif cell is not None:
        raise ValueError(f"{shown(cell)} in column {column!r} is no text")


def utf8(text: str | bytes) -> str:
    """A text that can be written as UTF-8. Raises ValueError for another."""
    try:
        decoded = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        decoded.encode()
    except UnicodeError:
        raise ValueError("it is not UTF-8") from None
    return decoded
