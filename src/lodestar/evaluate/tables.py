"""Reports for a person: the numbers first, then what they depend on, then what to mind."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.table import Table

_DIGITS = 16
"""Of a digest, which nobody compares to its end."""


def report_table(numbers: Iterable[tuple[str, str]], settings: Mapping[str, Any], warnings: Iterable[str]) -> Table:
    """numbers: names and texts. settings: by the names of a report's fields; those that are None are left out."""
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for name, text in numbers:
        table.add_row(name, text)
    table.add_section()
    for name, setting in settings.items():
        if setting is not None:
            shown = str(setting)[:_DIGITS] if name.endswith(("_digest", "_fingerprint")) else str(setting)
            table.add_row(name.replace("_", " "), shown or "none")
    for warning in warnings:
        table.add_row("note", warning, style="yellow")
    return table
