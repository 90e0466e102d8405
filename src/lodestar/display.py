"""Display in notebooks: results as HTML with everything in it escaped, and pictures that are drawn while they are made."""

from __future__ import annotations

import base64
import importlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from html import escape
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.table import Table

T = TypeVar("T")


def table(rows: Iterable[Sequence[object]], headings: Sequence[object] = ()) -> str:
    """HTML of a table; an empty heading row is left out."""
    head = f"<thead>{_row(headings, 'th')}</thead>" if any(map(str, headings)) else ""
    return f"<table>{head}<tbody>{''.join(_row(row, 'td') for row in rows)}</tbody></table>"


def _row(cells: Sequence[object], tag: str) -> str:
    written = (f'<{tag} style="text-align: left">{escape(str(cell))}</{tag}>' for cell in cells)
    return f"<tr>{''.join(written)}</tr>"


def printed(shown: Table) -> str:
    """HTML of a table that is printed elsewhere."""
    columns = [list(column.cells) for column in shown.columns]
    return table(zip(*columns, strict=True), [column.header for column in shown.columns])


def picture(png: bytes, told: str) -> str:
    """HTML of a PNG file, at its own size or as wide as there is room. told: its text for who does not see it."""
    return f'<img alt="{escape(told)}" src="data:image/png;base64,{base64.b64encode(png).decode()}" style="max-width: 100%">'


def caption(text: str) -> str:
    """HTML of a line above or below something."""
    return f"<div><b>{escape(text)}</b></div>"


def live(items: Iterable[T]) -> Iterator[T]:
    """The items as they come, each drawn in the place of the one before by the notebook in which this runs, if any."""
    ipython = sys.modules.get("IPython")  # where it is not imported, nothing shows what it draws
    shell = None if ipython is None else ipython.get_ipython()
    if not hasattr(shell, "kernel"):
        yield from items
        return
    display, drawn = importlib.import_module("IPython.display").display, None
    for item in items:
        if drawn is None:
            drawn = display(item, display_id=True)
        else:
            drawn.update(item)
        yield item
