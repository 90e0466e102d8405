"""Plots: curves over a swept setting, heat maps of two settings, and models beside each other; a panel for each number."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lodestar.extras import need
from lodestar.files import atomic
from lodestar.images import load_png

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.lines import Line2D

_WIDE = 20
"""Factor between extreme values beyond which an axis is logarithmic."""

_COLUMNS = 2
_LEGEND = 3
"""Columns of a figure's legend."""


@dataclass(frozen=True)
class Ticks:
    """A swept setting: its name, and its values as text, in the order of drawing."""

    label: str
    names: Sequence[str]
    numbers: Sequence[float] | None = None
    """Positions, ascending; None for names without an order, which are spaced evenly."""


@dataclass(frozen=True)
class Curve:
    """A number at each value of a setting; NaN if not measured."""

    name: str
    values: Sequence[float]
    deviations: Sequence[float] | None = None
    places: Sequence[float] | None = None
    """Positions on an axis of the panel's own; None for the setting's."""
    marked: bool = True
    """Draw a mark at each value."""
    joined: bool = True
    """Draw a line through the values, where the setting has an order."""


def curves(path: Path, title: str, x: Ticks, panels: Mapping[str, Sequence[Curve]], own: str = "") -> None:
    """Draw panels of curves over x as a PNG, by the panels' titles; legends distinguish the curves where a panel has several.

    own: the axis title of panels whose curves have places of their own. The file is written atomically. Raises Problem without
    matplotlib.
    """
    places = list(range(len(x.names))) if x.numbers is None else list(x.numbers)
    positive = [value for value in places if value > 0]
    wide = x.numbers is not None and bool(positive) and max(positive) > _WIDE * min(positive)

    named = any(len(panel) > 1 for panel in panels.values())

    def draw(axes: Axes, panel: Sequence[Curve]) -> None:
        for curve in panel:
            axes.errorbar(
                places if curve.places is None else curve.places, curve.values, yerr=curve.deviations, markersize=5, capsize=3,
                marker="o" if curve.marked else "", label=curve.name,
                linestyle="-" if curve.joined and x.numbers is not None else "none",
            )  # fmt: skip
        if panel[0].places is None:
            mark(axes)
        else:
            axes.locator_params(axis="x", nbins=5)
            axes.set_xlabel(own)
        axes.ticklabel_format(axis="y", useOffset=False)
        axes.grid(alpha=0.3)
        if named and any(curve.name for curve in panel):
            axes.legend(fontsize=8)

    def mark(axes: Axes) -> None:
        if wide:
            # Linear up to the smallest positive value, so 0 has a place.
            axes.set_xscale("symlog", linthresh=min(positive), linscale=0.6)
        axes.set_xticks(places, x.names, rotation=0 if x.numbers is not None else 20)
        axes.minorticks_off()
        axes.set_xlabel(x.label)

    _save(path, title, {name: partial(draw, panel=panel) for name, panel in panels.items()})


def lines(path: Path, title: str, x: str, panels: Mapping[str, Sequence[Curve]]) -> None:
    """Draw panels of curves with places of their own; x: the axis title. See `curves`."""
    curves(path, title, Ticks("", (), ()), panels, x)


def heat_maps(path: Path, title: str, x: Ticks, y: Ticks, panels: Mapping[str, Sequence[Sequence[float]]]) -> None:
    """Draw panels of numbers [y][x] as colours, with the numbers on top, as a PNG; NaN leaves a place empty. See `curves`."""

    def draw(axes: Axes, values: Sequence[Sequence[float]]) -> None:
        image = axes.imshow(values, origin="lower", aspect="auto", cmap="viridis")
        low, high = image.get_clim()
        for row, line in enumerate(values):
            for column, value in enumerate(line):
                if value == value:  # not NaN
                    dark = value < (low + high) / 2
                    axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=8, color="w" if dark else "k")
        axes.set_xticks(range(len(x.names)), x.names)
        axes.set_yticks(range(len(y.names)), y.names)
        axes.set_xlabel(x.label)
        axes.set_ylabel(y.label)

    _save(path, title, {name: partial(draw, values=values) for name, values in panels.items()})


def sheet(path: Path, title: str, x: Ticks, y: Ticks, pictures: Sequence[Sequence[Path]]) -> None:
    """Draw picture files [y][x] as one PNG, all of one size whatever their own; see `curves`. What is no file is left empty."""
    need("matplotlib")
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(9, 0.5 + 2.5 * len(x.names)), 0.5 + 2.5 * len(y.names)), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    cells = figure.subplots(len(y.names), len(x.names), squeeze=False)
    for axes, place in zip(cells.flat, (place for line in pictures for place in line), strict=True):
        axes.set_xticks([])
        axes.set_yticks([])
        if place.exists():
            axes.imshow(load_png(place).permute(1, 2, 0).numpy())
    for axes, name in zip(cells[-1], x.names, strict=True):
        axes.set_xlabel(f"{x.label} {name}", fontsize=8)
    for axes, name in zip(cells[:, 0], y.names, strict=True):
        axes.set_ylabel(f"{y.label} {name}", fontsize=8)
    with atomic(path) as file:
        figure.savefig(file, format="png")


@dataclass(frozen=True)
class Scatter:
    """Points of two numbers each, by the names of models; an axis of wide range is logarithmic."""

    points: Mapping[str, tuple[float, float]]
    x: str
    y: str


@dataclass(frozen=True)
class Bars:
    """A number of each model, by name."""

    values: Mapping[str, float]
    wide: bool = False
    """Take a logarithmic axis for a wide range."""


_LONGEST = 28
"""Characters of a model's name in a picture."""
_MARKERS = "osD^vP*Xhd<>"


def marked(path: Path, title: str, names: Sequence[str], panels: Mapping[str, Scatter | Bars]) -> None:
    """Draw panels of models as a PNG. A model has one colour and marker in all, which a legend below tells. See `curves`."""
    need("matplotlib")
    from matplotlib.lines import Line2D

    looks: Mapping[str, Any] = {
        name: {"color": f"C{k % 10}", "marker": _MARKERS[k % len(_MARKERS)], "label": _brief(name, names)}
        for k, name in enumerate(names)
    }

    def draw(axes: Axes, panel: Scatter | Bars) -> None:
        if isinstance(panel, Bars):
            return _draw_bars(axes, panel, looks)
        for name, (x, y) in panel.points.items():
            axes.plot([x], [y], linestyle="none", markersize=10, alpha=0.75, **looks[name])
        if _wide([x for x, _ in panel.points.values()]):
            axes.set_xscale("log")
        if _wide([y for _, y in panel.points.values()]):
            axes.set_yscale("log")
        axes.margins(0.12)
        axes.set_xlabel(panel.x)
        axes.set_ylabel(panel.y)
        axes.grid(alpha=0.3)

    legend = [Line2D([], [], linestyle="none", markersize=8, **look) for look in looks.values()]
    _save(path, title, {name: partial(draw, panel=panel) for name, panel in panels.items()}, legend)


def _draw_bars(axes: Axes, panel: Bars, looks: Mapping[str, Any]) -> None:
    values = panel.values
    names = list(values)[::-1]  # the first on top
    bars = axes.barh(range(len(names)), [values[name] for name in names], color=[looks[name]["color"] for name in names])
    axes.bar_label(bars, fmt="%.3g", padding=3, fontsize=8)
    axes.set_yticks(range(len(names)), [looks[name]["label"] for name in names], fontsize=8)
    if panel.wide and _wide(list(values.values())):
        axes.set_xscale("log")
        axes.set_xlim(min(values.values()) / 2, max(values.values()) * 4)
    else:
        axes.margins(x=0.25)
    axes.grid(alpha=0.3, axis="x")


def _brief(name: str, names: Sequence[str]) -> str:
    """A model's name as it has room: a long one without its settings, where no other begins so; else its end, where they are."""
    if len(name) <= _LONGEST:
        return name
    plain = name.partition(",")[0]
    alone = sum(each.partition(",")[0] == plain for each in names) == 1
    return plain if alone and len(plain) <= _LONGEST else f"…{name[1 - _LONGEST :]}"


def _wide(values: Sequence[float]) -> bool:
    return bool(values) and min(values) > 0 and max(values) > _WIDE * min(values)


def _save(path: Path, title: str, panels: Mapping[str, Callable[[Axes], None]], legend: Sequence[Line2D] = ()) -> None:
    need("matplotlib")
    from matplotlib.figure import Figure

    rows = -(-len(panels) // _COLUMNS)
    beneath = -(-len(legend) // _LEGEND)
    figure = Figure(figsize=(9, 1 + 3 * rows + 0.25 * beneath), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10)
    if legend:
        figure.legend(handles=legend, loc="outside lower center", ncols=min(len(legend), _LEGEND), fontsize=8)
    for number, (name, draw) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(rows, min(_COLUMNS, len(panels)), number)
        axes.set_title(name, fontsize=10)
        draw(axes)
    with atomic(path) as file:
        figure.savefig(file, format="png")
