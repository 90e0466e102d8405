"""Some of a source's pictures as a source of their own: those to train on, and those to hold out."""

from __future__ import annotations

import numpy as np

from lodestar.config import Problem
from lodestar.data.rows import PartRows
from lodestar.data.source import Source
from lodestar.data.transforms import Size


def part(source: Source, indices: np.ndarray, size: Size | None) -> Source:
    """The pictures of a source at `indices`, resized and cropped to `size`; without it they must agree. Raises Problem."""
    return Source(PartRows(source.rows, indices), source.spec, channels=source.channels, size=size, skip_bad=source.skip_bad)


def divide(count: int, share: float) -> tuple[np.ndarray, np.ndarray]:
    """Indices of `count` pictures to train on, and, a `share` in (0, 1) of them, to hold out: at random, the same every time.

    Both ascend. Raises Problem if none would be left to train on.
    """
    held_out = max(round(share * count), 1)
    if held_out == count:
        raise Problem(f"data.held_out is {share}: of {count} pictures that leaves none to train on")
    order = np.random.default_rng(0).permutation(count)
    return np.sort(order[held_out:]), np.sort(order[:held_out])
