"""Columns of a table: pictures, labels, and the names of the classes.

Tables describe their columns as Hugging Face `datasets` does, ``{"label": {"_type": "ClassLabel", "names": [...]}}``: a hub data
set as its features, a parquet file in its schema's ``huggingface`` key.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from lodestar.config import Note, Problem, nearest, shown
from lodestar.data.classes import numbered

Features = Mapping[str, Any]
"""Description of each column, by name. For columns of lists or of several fields, it may have any form."""
Labels = tuple[tuple[str, ...] | None, np.ndarray | None]
"""Class names, and class numbers int64 [N]; or neither."""


@dataclass(frozen=True)
class Asked:
    """Requested parts of a data set besides its pictures, and their columns in a table."""

    image: str | None = None
    """The column of pictures; None: the first of such."""
    label: str | None = None
    """The column of classes; None: the column "label", or the first of classes."""
    labels: bool | None = True
    """Read the classes. None: if possible; otherwise without classes, and a Note says why."""
    captions: bool = False
    """Read the captions."""
    caption: str | None = None
    """The columns of captions, with commas between them; None: the column "caption", or "text"."""
    style: str | None = None
    """The column of styles, each a text or a class, to be read as a field and as a word of the captions; None: neither."""


def if_asked(asked: Asked, read: Callable[[], Labels]) -> Labels:
    """The labels, as far as they are asked for. Raises the Problem of `read` where they have to be right."""
    if asked.labels is False:
        return None, None
    try:
        return read()
    except Problem as problem:
        if asked.labels:
            raise
        warnings.warn(Note(f"{problem}; no labels are read"), stacklevel=2)
        return None, None


def image_column(features: Features, spec: str, asked: Asked, texts: Collection[str] = ()) -> str:
    """The column of pictures: the one asked for, or the first of type Image. Raises Problem listing the columns.

    Columns that are neither pictures nor labels nor among `texts` are named in a Note.
    """
    images = [name for name in features if _type(features, name) == "Image"]
    if asked.image in images or (asked.image is None and images):
        chosen = asked.image or images[0]
        if unread := [name for name in features if name not in (chosen, _label_column(features, asked), *texts)]:
            warnings.warn(Note(f"{spec}: columns that are not read: {', '.join(unread)}"), stacklevel=2)
        return chosen
    wanted = f"no column of pictures {asked.image!r}" if asked.image else "no column of pictures (struct of bytes and path)"
    columns = ", ".join(features)
    raise Problem(f"{spec}: {wanted}; the columns are {columns}{nearest(asked.image or 'image', images or features)}")


def read_labels(features: Features, spec: str, asked: Asked, read: Callable[[str], Iterable[Any]]) -> Labels:
    """Class names and class numbers, of all rows, so that a wrong one is found before training; or neither.

    A column without class names has its distinct values for classes. A column that was not asked for by name, and holds no class
    numbers or names, is ignored with a Note. `read` gives a column's cells. Raises Problem naming the column or the row.
    """
    if asked.label is not None and asked.label not in features:
        columns = ", ".join(features)
        raise Problem(f"{spec}: no column of labels {asked.label!r}; the columns are {columns}{nearest(asked.label, features)}")
    column = _label_column(features, asked)
    if column is None or asked.labels is False:
        return None, None

    def found() -> Labels:
        if _type(features, column) == "ClassLabel":
            names = class_names(features, column)
            if names is None:
                told = shown(features[column].get("names"))
                raise Problem(f"{spec}: the classes of column {column!r} are {told}, and not a list of names")
            return _named(names, spec, column, read)
        return _distinct(spec, column, read, asked.label is not None)

    return if_asked(asked, found)


def class_names(features: Features, column: str) -> tuple[str, ...] | None:
    """The names of the classes in a column of class numbers; None for another, or where they are no names."""
    names = features[column].get("names") if _type(features, column) == "ClassLabel" else None
    return tuple(names) if isinstance(names, list) and all(isinstance(name, str) for name in names) else None


def _type(features: Features, column: str) -> Any:
    """What a column holds, by its own word; None where it has none."""
    told = features[column]
    return told.get("_type") if isinstance(told, Mapping) else None


def _label_column(features: Features, asked: Asked) -> str | None:
    classes = [name for name in features if _type(features, name) == "ClassLabel"]
    return asked.label or ("label" if "label" in features else next(iter(classes), None))


def _named(names: tuple[str, ...], spec: str, column: str, read: Callable[[str], Iterable[Any]]) -> Labels:
    """Labels of a column whose classes have names."""
    cells = list(read(column))
    _check(cells, spec, column, int | None)
    numbers = np.fromiter((-1 if cell is None else cell for cell in cells), np.int64)
    # -1 is how `datasets` writes a label that is withheld, as in the test part of a competition's data.
    if (numbers == -1).all():
        return None, None
    for row in np.flatnonzero((numbers < 0) | (numbers >= len(names)))[:1]:
        raise Problem(f"row {row} of {spec} has label {numbers[row]}, out of range: {len(names)} classes, 0 to {len(names) - 1}")
    used = set(numbers.tolist())
    if unused := [name for number, name in enumerate(names) if number not in used]:
        shown = ", ".join(unused[:3]) + (", …" if len(unused) > 3 else "")
        warnings.warn(Note(f"{spec}: {len(unused)} of {len(names)} classes have no picture: {shown}"), stacklevel=2)
    return names, numbers


def _distinct(spec: str, column: str, read: Callable[[str], Iterable[Any]], asked: bool) -> Labels:
    """Labels of a column whose classes are its distinct values."""
    cells = list(read(column))
    if not asked and not any(isinstance(cell, int | str) for cell in cells):
        what = next((f"values of type {type(cell).__name__}" for cell in cells if cell is not None), "nothing")
        warnings.warn(Note(f"{spec}: column {column!r} holds {what}, and no classes: no labels are read"), stacklevel=2)
        return None, None
    _check(cells, spec, column, int | str)
    return numbered(cells)


def _check(cells: Iterable[Any], spec: str, column: str, kind: Any) -> None:
    for row, cell in enumerate(cells):
        if not isinstance(cell, kind):
            wrong = "no label" if cell is None else f"a {type(cell).__name__}"
            raise Problem(f"row {row} of {spec} has {wrong} in column {column!r}: labels are class numbers or names")
