"""Tables of runs, for display."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.table import Table

Row = Mapping[str, str | int | float | None]
"""Table cells by column; None is an empty cell."""


def laid_out(rows: Sequence[Row], headings: Mapping[str, str], signed: Sequence[str] = ()) -> Table:
    """A table of the columns of `headings`, by name; numbers of the columns in `signed` show their sign."""
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
