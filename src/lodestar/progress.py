"""Progress on standard error, so that standard output stays for results."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.measure import Measurement
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

MEASURED = 3.0
"""Seconds of work before a forecast."""
_WIDEST = 2_000
"""Characters in a line of the widest table."""


def error_console(quiet: bool = False) -> Console:
    """A console on standard error, in notebooks too, where rich would show results among results and ask for widgets."""
    return Console(stderr=True, quiet=quiet, force_jupyter=False)


def print_whole(console: Console, table: Table) -> None:
    """Print a table with every column: where a terminal is too narrow for each one's longest word, it breaks the lines itself.

    A console of rich leaves columns out and cuts words.
    """
    least = Measurement.get(console, console.options.update(max_width=_WIDEST), table).minimum
    console.width = max(console.width, least)
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


@contextmanager
def progress(
    what: str, total: float, *, done: float = 0, console: Console | None = None, transient: bool = True
) -> Iterator[Callable[..., None]]:
    """A progress bar with a count, a note and the time left. Call the yielded function as (done) or (done, note)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        TimeRemainingColumn(),
    )
    console = console or error_console()
    # A bar that vanishes at its end leaves an empty line in a file.
    with Progress(*columns, console=console, transient=transient, disable=transient and not console.is_terminal) as bar:
        task = bar.add_task(what, total=total, completed=int(done), note="")

        def update(done: float, note: str | None = None) -> None:
            bar.update(task, completed=done)
            if note is not None:
                bar.update(task, note=note)

        yield update


class Forecast:
    """A forecast of the duration of work, from the time of its first parts; silent for work of a few seconds."""

    def __init__(self, total: float, clock: Callable[[], float] = time.monotonic) -> None:
        """total: number of units of work; clock: seconds."""
        self.total, self.clock = total, clock
        self._first: tuple[float, float] | None = None
        self._told = False

    def __call__(self, done: float) -> float | None:
        """Report the units done, after every part. Returns the seconds left, once, when they are known."""
        now = self.clock()
        if self._first is None:  # the first part is slower: it sets up what the others find there
            self._first = (now, done)
            return None
        began, units = self._first
        if self._told or now - began < MEASURED or done <= units:
            return None
        self._told = True
        return (self.total - done) * (now - began) / (done - units)


class Foretold:
    """Says once, on a console, about how long the rest of some work takes here: "about 3.3 hours to go here"."""

    def __init__(self, console: Console, total: float, following: int = 0, beside: str = "") -> None:
        """total: number of units of work; following: number of works of the same length to come, which the text includes.

        beside: name of work that is not counted.
        """
        self.console, self.total, self.following, self.beside = console, total, following, beside
        self.forecast = Forecast(total)

    def __call__(self, done: float) -> None:
        """To be called after every part, with the units done so far."""
        left = self.forecast(done)
        if left is None or done >= self.total:
            return
        told = f"{span(left)} to go here"
        if self.following:
            whole = left * self.total / (self.total - done)
            told += f", {span(left + self.following * whole)} with {self.following} more like it"
        self.console.print(f"{told}, {self.beside} not counted" if self.beside else told)

    def within(self, before: float, weight: float) -> Callable[[float], None]:
        """The function to call within a part of the work: `before` units came before, and a unit of the part counts `weight`."""
        return lambda done: self(before + weight * done)


def span(seconds: float) -> str:
    """A length of time in words: "about 3.3 hours"."""
    units = (("seconds", 1, 100), ("minutes", 60, 100), ("hours", 3_600, 48), ("days", 86_400, math.inf))
    unit, size = next((unit, size) for unit, size, end in units if seconds < end * size)
    count = max(seconds, 2) / size
    return f"about {count:.1f} {unit}" if count < 10 and size > 1 else f"about {count:.0f} {unit}"
