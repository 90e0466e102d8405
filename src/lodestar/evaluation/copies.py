"""Pictures beside the nearest of a reference: copies of training pictures are seen at once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from lodestar.core.neighbours import nearest
from lodestar.data import Source
from lodestar.evaluation.statistics import Statistics
from lodestar.files import write_csv
from lodestar.images import save_grid

_CLOSEST, _NEIGHBOURS = 10, 6
"""Pictures drawn beside their nearest neighbours, and how many of these."""


def draw_neighbours(
    out: Path, picture: Callable[[int], Tensor | None], ours: Statistics, theirs: Statistics, reference: Source
) -> None:
    """Write the nearest picture of the reference to each picture (neighbours.csv), and draw the closest (neighbours.png).

    In the drawing, a row is a picture and, after a gap, its nearest ones; the first row is the closest of all. picture: gives a
    picture by its number; None where there is none.
    """
    assert ours.features is not None and theirs.features is not None
    distances2, indices = nearest(ours.features, theirs.features, min(_NEIGHBOURS, len(theirs.features)))
    lines = [
        {"picture": number, "nearest": reference.rows.where(int(index)), "distance": f"{float(distance2) ** 0.5:.6g}"}
        for number, (index, distance2) in enumerate(zip(indices[:, 0], distances2[:, 0], strict=True))
    ]
    write_csv(out / "neighbours.csv", lines)
    rows = []
    for row in distances2[:, 0].argsort()[:_CLOSEST].tolist():
        shown = [picture(row), *(shown_of(reference, index) for index in indices[row].tolist())]
        found = [each for each in shown if each is not None]
        gap = torch.full_like(found[0], 255)
        rows += [found[0], gap, *found[1:]]
    # Grey ones may stand beside others in colour.
    save_grid(out / "neighbours.png", torch.stack([row.expand(3, -1, -1) for row in rows]), columns=indices.shape[1] + 2)


def shown_of(source: Source, index: int) -> Tensor | None:
    """A picture of a source, uint8 [C, H, W]; None where it is bad."""
    image = source.image(index)
    return None if image is None else torch.from_numpy(image.copy())
