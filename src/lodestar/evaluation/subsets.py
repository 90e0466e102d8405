"""Subsets of pictures that depend on the pictures and a seed, and not on the order in which the pictures come."""

from __future__ import annotations

import torch
from torch import Tensor

from lodestar.core.noise import generator
from lodestar.evaluation.neighbours import BLOCK


def ordered(rows: Tensor) -> Tensor:
    """Rows [N, D] in an order of their own, whatever the order in which they come: along one fixed direction.

    Rows that rounding alone tells apart stay next to each other; equal rows can stand for one another.
    """
    direction = torch.randn(rows.shape[1], generator=generator(0), dtype=torch.float64)
    places = torch.cat([block.double() @ direction for block in rows.split(BLOCK)])
    return rows[places.argsort()]


def shuffled(rows: Tensor, seed: int) -> Tensor:
    """Rows [N, D] in the random order of a seed, the same one whatever the order in which they come."""
    return ordered(rows)[torch.randperm(len(rows), generator=generator(seed))]


def equal_parts(count: int, parts: int) -> list[slice]:
    """`parts` consecutive parts of `count` rows, whose sizes differ by one at most."""
    return [slice(i * count // parts, (i + 1) * count // parts) for i in range(parts)]
