"""Subsets of pictures by content and seed, independent of the pictures' order."""

from __future__ import annotations

import torch
from torch import Tensor

from lodestar.core.neighbours import BLOCK
from lodestar.core.noise import generator


def ordered(rows: Tensor) -> Tensor:
    """Rows [N, D] sorted along a fixed direction, independent of their order.

    Rows that differ by rounding alone stay next to each other; equal rows are interchangeable.
    """
    direction = torch.randn(rows.shape[1], generator=generator(0), dtype=torch.float64)
    places = torch.cat([block.double() @ direction for block in rows.split(BLOCK)])
    return rows[places.argsort()]


def shuffled(rows: Tensor, seed: int) -> Tensor:
    """Rows [N, D] in the random order of a seed, independent of their own order."""
    return ordered(rows)[torch.randperm(len(rows), generator=generator(seed))]


def equal_parts(count: int, parts: int) -> list[slice]:
    """Slices of `count` rows into `parts` consecutive parts, whose sizes differ by one at most."""
    return [slice(i * count // parts, (i + 1) * count // parts) for i in range(parts)]
