"""Random numbers of pictures, independent of the division of a batch into pieces."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol, Self, TypeVar

import torch
from torch import Tensor


class Sliceable(Protocol):
    """A random draw for a batch, with a row for each picture."""

    def __getitem__(self, rows: slice, /) -> Any:
        """The rows of some of the pictures."""


T = TypeVar("T", bound=Sliceable)


class Rng:
    """Random numbers for a batch of `count` pictures, in the order of requests.

    A `piece` of the batch gets its rows of the whole batch's draw, so neither the size of pieces nor the number of processes
    changes a draw. All pieces must make the same requests in the same order.
    """

    def __init__(self, generator: torch.Generator, count: int) -> None:
        self.generator, self.count, self.rows = generator, count, slice(0, count)
        self._drawn: list[Any] = []
        self._asked = 0

    def piece(self, rows: slice) -> Self:
        """The random numbers of these pictures of the batch."""
        piece = type(self)(self.generator, self.count)
        piece.rows, piece._drawn = rows, self._drawn
        return piece

    def draw(self, make: Callable[[int, torch.Generator], T]) -> T:
        """The result of `make(count, generator)` for the whole batch: the rows of these pictures."""
        if self._asked == len(self._drawn):
            self._drawn.append(make(self.count, self.generator))
        self._asked += 1
        whole: T = self._drawn[self._asked - 1]
        rows: T = whole[self.rows]
        return rows

    def normal(self, *shape: int) -> Tensor:
        """Standard normal numbers, float32 [B, *shape]."""
        return self.draw(lambda count, rng: torch.randn((count, *shape), generator=rng, device=rng.device))

    def uniform(self) -> Tensor:
        """Uniform numbers in [0, 1), float32 [B]."""
        return self.draw(lambda count, rng: torch.rand(count, generator=rng, device=rng.device))

    def integers(self, end: int) -> Tensor:
        """Uniform integers in [0, end), int64 [B]."""
        return self.draw(lambda count, rng: torch.randint(end, (count,), generator=rng, device=rng.device))
