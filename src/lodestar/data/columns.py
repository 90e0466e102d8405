"""Which column of a table holds the pictures, which the labels, and what the classes are called.

Tables describe their columns as Hugging Face `datasets` does, ``{"label": {"_type": "ClassLabel", "names": [...]}}``: a hub data
set as its features, a parquet file in its schema's ``huggingface`` key.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from types import UnionType
from typing import Any

import numpy as np

from lodestar.config import Problem, nearest

Features = Mapping[str, Mapping[str, Any]]


def image_column(features: Features, spec: str, asked: str | None) -> str:
    """The column of pictures: the one `asked` for, or the first of type Image. Raises Problem listing the columns."""
    images = [name for name, feature in features.items() if feature.get("_type") == "Image"]
    if asked is None and images:
        return images[0]
    if asked in images:
        return asked
    wanted = f"no column of pictures {asked!r}" if asked else "no column of pictures (struct of bytes and path)"
    raise Problem(f"{spec}: {wanted}; the columns are {', '.join(features)}{nearest(asked or 'image', images or features)}")


def read_labels(
    features: Features, spec: str, asked: str | None, read: Callable[[str], Iterable[Any]]
) -> tuple[tuple[str, ...] | None, np.ndarray | None]:
    """Class names and class numbers int64 [N], all of them, so that a wrong one is found before training; or neither.

    They are in the column `asked` for, or one called ``label``, or the first ClassLabel. A column without class names has its
    distinct values, sorted, for classes. `read` gives a column's cells. Raises Problem naming the column or the row.
    """
    classes = [name for name, feature in features.items() if feature.get("_type") == "ClassLabel"]
    if asked is not None and asked not in features:
        raise Problem(f"{spec}: no column of labels {asked!r}; the columns are {', '.join(features)}{nearest(asked, features)}")
    column = asked or ("label" if "label" in features else next(iter(classes), None))
    if column is None:
        return None, None
    if column in classes:
        names = tuple(features[column]["names"])
        cells = _checked(spec, column, read, int | None)
        numbers = np.fromiter((-1 if cell is None else cell for cell in cells), np.int64)
        # -1 is how `datasets` writes a label that is withheld, as in the test part of a competition's data.
        if (numbers == -1).all():
            return None, None
        for row in np.flatnonzero((numbers < 0) | (numbers >= len(names)))[:1]:
            raise Problem(
                f"row {row} of {spec} has label {numbers[row]}, out of range: {len(names)} classes, 0 to {len(names) - 1}"
            )
        return names, numbers
    seen: dict[Any, int] = {}
    numbers = np.fromiter((seen.setdefault(cell, len(seen)) for cell in _checked(spec, column, read, int | str)), np.int64)
    ordered = sorted(seen)
    rank = np.empty(len(seen), np.int64)
    rank[[seen[value] for value in ordered]] = np.arange(len(seen))
    return tuple(map(str, ordered)), rank[numbers]


def _checked(spec: str, column: str, read: Callable[[str], Iterable[Any]], kind: type | UnionType) -> Iterator[Any]:
    for row, cell in enumerate(read(column)):
        if not isinstance(cell, kind):
            wrong = "no label" if cell is None else f"a {type(cell).__name__}"
            raise Problem(f"row {row} of {spec} has {wrong} in column {column!r}: labels are class numbers or names")
        yield cell
