"""Parts of what is named: rows of a table by their columns, and shards by a pattern."""

from __future__ import annotations

import glob
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from lodestar.config import Problem, nearest
from lodestar.data.parquet import ParquetRows
from lodestar.data.rows import PartRows

SPLIT = "split"
"""The column of a table that says which split a row is in."""
_SHARDS = 100_000
"""More shards than this are a slip."""
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"([0-9]{1,9})\.\.([0-9]{1,9})")
_TEST = re.compile(r"(?:(?P<column>[^=!]+?)\s*(?P<operator>!?=))?\s*(?P<values>.+)")


def selected(rows: ParquetRows, told: str, spec: str) -> PartRows:
    """The rows that a text such as ``test`` or ``train,style!=openmoji|noto`` selects, by the values of their columns.

    A word alone is a value of the column "split"; | stands between values, classes go by name. Raises Problem.
    """
    kept = np.ones(len(rows), bool)
    for part in told.split(","):
        match = _TEST.fullmatch(part.strip())
        if match is None:
            raise Problem(f"{spec}: {part!r} selects no rows: write a split's name, column=value or column!=value")
        column, wanted = match["column"] or SPLIT, [value.strip() for value in match["values"].split("|")]
        cells = np.array([str(cell) for cell in rows.column(column)], object)
        there = sorted(set(cells))
        for value in wanted:
            if value not in there:
                some = ", ".join(there[:10]) + (", …" if len(there) > 10 else "")
                raise Problem(f"{spec}: no row has {value!r} in column {column!r}: it holds {some}{nearest(value, there)}")
        kept &= np.isin(cells, wanted) != (match["operator"] == "!=")
    return PartRows(rows, np.flatnonzero(kept))


def shards(pattern: str) -> list[Path]:
    """The files of a pattern, in the order of their names: {0..9} counts, {a,b} lists, * and ? are any characters.

    One without such is no pattern, and has none. Raises Problem where a listed file is not there.
    """
    if Path(pattern).expanduser().exists() or not re.search(r"[{*?]", pattern):
        return []
    found: list[Path] = []
    for name in expanded(pattern):
        path = Path(name).expanduser()
        some = sorted(map(Path, glob.glob(str(path)))) if re.search(r"[*?]", name) else [path] if path.is_file() else []
        if not some:
            raise Problem(f"{pattern}: there is no file {name}")
        found += some
    return found


def expanded(pattern: str) -> Iterator[str]:
    """The names that a pattern's braces count or list. Raises Problem, also for more than anybody has shards."""
    for number, name in enumerate(_expanded(pattern)):
        if number >= _SHARDS:
            raise Problem(f"{pattern} has more than {_SHARDS:,} shards")
        yield name


def _expanded(pattern: str) -> Iterator[str]:
    match = _BRACES.search(pattern)
    if match is None:
        yield pattern
        return
    if counted := _RANGE.fullmatch(match[1]):
        first, last = int(counted[1]), int(counted[2])
        if last - first >= _SHARDS or last < first:
            raise Problem(f"{pattern}: {{{match[1]}}} counts from {first:,} to {last:,}: give 1 to {_SHARDS:,} shards, upwards")
        words = [str(number).zfill(len(counted[1])) for number in range(first, last + 1)]
    else:
        words = match[1].split(",")
    for word in words:
        yield from _expanded(pattern[: match.start()] + word + pattern[match.end() :])
