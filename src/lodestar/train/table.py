"""Tables of runs: as CSV for machines, and for a person."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich import box
from rich.table import Table

from lodestar.files import write_text

Row = Mapping[str, str | int | float | None]
"""Cells by column; None is an empty one."""


def write_csv(path: Path, rows: Sequence[Row]) -> None:
    """Write rows of the same columns, atomically. Raises Problem when they cannot be written."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


def show(rows: Sequence[Row], headings: Mapping[str, str], signed: Sequence[str] = ()) -> Table:
    """The columns of `headings`, by name, as a table; numbers of the columns in `signed` have their sign."""
    table = Table(box=box.SIMPLE)
    for name, heading in headings.items():
        table.add_column(heading, justify="left" if isinstance(rows[0][name], str) else "right")
    for row in rows:
        table.add_row(*(_text(row[name], name in signed) for name in headings))
    return table


def _text(value: str | int | float | None, signed: bool) -> str:
    match value:
        case None:
            return ""
        case str():
            return value
        case int():
            return f"{value:,}"
        case _:
            return f"{value:+.2f}" if signed else f"{value:.3g}"
