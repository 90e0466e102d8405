"""The picture of a sweep: quality against what was swept, a panel for each number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from lodestar.extras import need
from lodestar.files import atomic

_WIDE = 20
"""Values that span more than this factor are drawn on a logarithmic axis."""


@dataclass(frozen=True)
class Panel:
    """One number at each swept value."""

    title: str
    values: Sequence[float]
    deviations: Sequence[float] | None = None


def plot(path: Path, title: str, label: str, x: Sequence[float], panels: Sequence[Panel]) -> None:
    """Draw the panels over x (ascending, at least one value), whose name is `label`, as a PNG.

    The file is written atomically. Raises Problem without matplotlib.
    """
    need("matplotlib")
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, NullLocator

    columns = 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(9, 1 + 3 * rows), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    positive = [value for value in x if value > 0]
    wide = bool(positive) and max(positive) > _WIDE * min(positive)
    for number, panel in enumerate(panels, start=1):
        axes = figure.add_subplot(rows, columns, number)
        axes.errorbar(x, panel.values, yerr=panel.deviations, marker="o", markersize=5, capsize=3, color="C0")
        if wide:
            # Linear up to the smallest positive value, so that 0 has its place.
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.6)
        axes.set_xticks(x)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.set_title(panel.title, fontsize=10)
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    with atomic(path) as file:
        figure.savefig(file, format="png")
