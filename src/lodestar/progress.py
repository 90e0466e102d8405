"""Progress on standard error, so that standard output stays for results."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


@contextmanager
def progress(
    what: str, total: float, *, done: float = 0, console: Console | None = None, transient: bool = True
) -> Iterator[Callable[..., None]]:
    """A bar with a count, a note and the time left. Call what it yields as (done) or (done, note)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console or Console(stderr=True), transient=transient) as bar:
        task = bar.add_task(what, total=total, completed=int(done), note="")

        def update(done: float, note: str | None = None) -> None:
            bar.update(task, completed=done)
            if note is not None:
                bar.update(task, note=note)

        yield update
