"""Tiles: pictures larger than a model's, estimated in overlapping parts that are blended in every step (MultiDiffusion, Bar-Tal
et al. 2023).

Noise belongs to the whole picture, and every part is of the size of the model's training.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from typing import Any

import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level

_BLENDED = ("x0", "frac", "logvar", "shift", "renoise", "unclipped")
"""The parts of an estimate that have a value at each place."""
TILES = 1_000_000
"""Maximum number of tiles of a picture."""
Size = tuple[int, int]


@dataclass(frozen=True)
class Tiling:
    """Overlapping tiles of one size, over a small picture and over its enlargement."""

    picture: Size
    """Height and width of the small picture."""
    tile: Size
    """Height and width of a tile of it, at most the picture's."""
    factor: int
    """Sides of the large picture by those of the small one."""
    overlap: float
    """The least part of a tile's side shared with its neighbour."""

    @property
    def result(self) -> Size:
        """Height and width of the large picture."""
        return self.picture[0] * self.factor, self.picture[1] * self.factor

    @property
    def count(self) -> int:
        """Number of tiles."""
        return math.prod(len(_starts(*sides, self.overlap)) for sides in zip(self.picture, self.tile, strict=True))

    @property
    def corners(self) -> list[tuple[int, int]]:
        """The upper left places of the tiles in the small picture, row by row."""
        rows, columns = (_starts(*sides, self.overlap) for sides in zip(self.picture, self.tile, strict=True))
        return list(product(rows, columns))

    def small(self, pictures: Tensor, corner: tuple[int, int]) -> Tensor:
        """A tile of small pictures [B, C, h, w]."""
        return _part(pictures, corner, self.tile)

    def large(self, pictures: Tensor, corner: tuple[int, int]) -> Tensor:
        """A tile of large pictures [B, C, H, W], as a view."""
        top, left = (each * self.factor for each in corner)
        return _part(pictures, (top, left), (self.tile[0] * self.factor, self.tile[1] * self.factor))

    def weights(self, corner: tuple[int, int]) -> Tensor:
        """The weights of a large tile, float32 [H, W]: highest in its middle, with a sum of 1 over all tiles at every place."""
        rows, columns = (
            _weights(*sides, self.overlap, self.factor)[start]
            for start, *sides in zip(corner, self.picture, self.tile, strict=True)
        )
        return rows[:, None] * columns


def tiled(tiling: Tiling, bind: Callable[[Sequence[tuple[int, int]]], Denoise], at_once: int) -> Denoise:
    """The `Denoise` of one large picture [1, C, H, W], of those of its tiles.

    bind: the `Denoise` of several tiles [T, C, H, W], given their corners, for a whole sampling run. at_once: the most of these.
    """
    corners = tiling.corners
    groups = [corners[first : first + at_once] for first in range(0, len(corners), at_once)]
    bound = [(group, bind(group)) for group in groups]

    def denoise(x: Tensor, level: Level) -> Estimate:
        whole: dict[str, Tensor] = {}
        estimate: Estimate | None = None
        for group, each in bound:
            estimate = each(torch.cat([tiling.large(x, corner) for corner in group]), level)
            for name in _BLENDED:
                values = getattr(estimate, name)
                if values is None:
                    continue
                into = whole.setdefault(name, torch.zeros_like(x))
                for row, corner in enumerate(group):
                    tiling.large(into, corner)[0].addcmul_(values[row], tiling.weights(corner).to(x))
        assert estimate is not None, "a picture has a tile"
        changed: dict[str, Any] = {"x": x, **whole}
        return replace(estimate, **changed)

    return denoise


def _part(pictures: Tensor, corner: tuple[int, int], size: Size) -> Tensor:
    (top, left), (height, width) = corner, size
    return pictures[..., top : top + height, left : left + width]


def _starts(length: int, tile: int, overlap: float) -> list[int]:
    """First places of tiles along a side, even as far as whole numbers go, the first at its beginning and the last at its end."""
    step = max(1, tile - math.ceil(overlap * tile))
    count = 1 + math.ceil((length - tile) / step)
    return [round(k * (length - tile) / max(1, count - 1)) for k in range(count)]


@lru_cache(maxsize=8)
def _weights(length: int, tile: int, overlap: float, factor: int) -> dict[int, Tensor]:
    """The weights of tiles along a side, by their first places: float32 [tile · factor], with a sum of 1 at every place."""
    size = tile * factor
    rise = torch.arange(1, size + 1, dtype=torch.float64)
    hat = torch.minimum(rise, rise.flip(0))
    starts = _starts(length, tile, overlap)
    total = torch.zeros(length * factor, dtype=torch.float64)
    for start in starts:
        total[start * factor : start * factor + size] += hat
    return {start: (hat / total[start * factor : start * factor + size]).float() for start in starts}
