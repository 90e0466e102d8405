"""Results, sweeps and training runs as HTML, with every text of others escaped."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from pathlib import Path

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.drawing import svg
from lodestar.display import caption, picture, table
from lodestar.evaluation.sweep import CSV, PANELS, grid_of
from lodestar.files import read_csv, reading, regular
from lodestar.images import png, sheet
from lodestar.training.log import numbers
from lodestar.web.desk import Made, Preview, Waiting

_DRAWN = 12
"""Most curves of a page."""


def waiting(place: Waiting) -> str:
    """A line for a request that waits."""
    return caption(f"waiting, {place.before} before you" if place.before else "loading the model")


def preview(now: Preview) -> str:
    """Pictures as they are estimated after a step."""
    told = f"{now.title + ': ' if now.title else ''}step {now.step} of {now.steps}"
    same = [image for image in now.images if image.shape == now.images[-1].shape]  # the stages of a cascade have their own
    return caption(told) + _drawn(torch.stack(same), told)


def made(whole: Made) -> str:
    """Finished pictures, with what made them, and notes."""
    notes = "".join(f"<p>note: {escape(note)}</p>" for note in whole.notes)
    if len(whole.samples) == 1:
        return notes + whole.samples[0]._repr_html_()
    results = zip(whole.calls, whole.samples, strict=True)
    parts = [caption(call.title) + picture(each._repr_png_(), f"{call.title}: {each!r}") for call, each in results]
    return f'{notes}<div class="results">{"".join(f"<section>{part}</section>" for part in parts)}</div>'


def _drawn(images: Tensor, told: str) -> str:
    return picture(png(sheet(images)), told)


def rows(folder: Path) -> list[dict[str, str]]:
    """The lines of a sweep's CSV. Raises Problem."""
    with reading(folder / CSV):
        found = read_csv(folder / CSV)
    if not found:
        raise Problem(f"{folder / CSV} has no values")
    return found


def values(found: Sequence[dict[str, str]]) -> list[tuple[str, ...]]:
    """The swept values of each line."""
    swept = found[0].get("swept", "").split()
    return [tuple(row.get(name, "") for name in swept) for row in found]


def sweep(folder: Path) -> str:
    """Curves of a sweep, whose points are buttons with the number of their line. Raises Problem."""
    found = rows(folder)
    told, swept = list(map(" ".join, values(found))), found[0].get("swept", "")
    places = [_number(name) for name in told]
    across = list(map(float, range(len(told)))) if any(map(math.isnan, places)) else places
    curves = []
    for column, title in {**PANELS, "images_per_second": "Pictures per second"}.items():
        points = [(x, _number(row.get(column) or ""), k) for k, (x, row) in enumerate(zip(across, found, strict=True))]
        there = sorted((x, y, k) for x, y, k in points if math.isfinite(y))
        if there:
            buttons = {k: f"{swept} {told[k]}: {title} {y:g}" for _, y, k in there}
            line = [(x, y) for x, y, _ in there]
            curves.append(svg(title, line, line, (swept, ""), buttons))
    return f'<div class="results">{"".join(curves)}</div>'


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def point(folder: Path, number: int) -> str:
    """The numbers and the pictures of a point of a sweep. Raises Problem."""
    found = rows(folder)
    if not 0 <= number < len(found):
        raise Problem(f"point {number}: there are 0 to {len(found) - 1}")
    row, at = found[number], values(found)[number]
    name = " ".join(at)
    told = [(key, value) for key, value in row.items() if value and not key.endswith("digest")]
    path = grid_of(folder, at)
    drawn = picture(regular(path).read_bytes(), f"samples at {name}") if path.is_file() else ""
    return caption(f"{row.get('swept', '')} {name}") + drawn + table(told)


def run(folder: Path) -> str:
    """Losses, held-out numbers and the latest samples of a training run. Raises Problem."""
    found = numbers(folder)
    seen = max(values[-1][0] for values in found.values())
    last = [(name, f"{values[-1][1]:.5g}", f"{values[-1][0]:,.0f}") for name, values in found.items()]
    grids = sorted((folder / "samples").glob("*.png"))
    drawn = [svg(name, values, axes=("images seen", "")) for name, values in list(found.items())[:_DRAWN]]
    latest = (
        caption(f"samples after {int(grids[-1].stem):,} images") + picture(grids[-1].read_bytes(), "samples") if grids else ""
    )
    return (
        caption(f"{folder}: {seen:,.0f} images seen")
        + f'<div class="results"><section>{latest}</section>{"".join(drawn)}</div>'
        + table(last, ("number", "last value", "at"))
    )
