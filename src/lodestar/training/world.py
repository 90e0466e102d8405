"""The processes of a run: each takes a share of every batch, and all take the same step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lodestar.data.batch import share


class World:
    """A process of a run, and what it has from the others. This one is alone: a class for several overrides all but `share`."""

    rank: int = 0
    """Which one it is."""
    size: int = 1
    """How many there are."""

    def share(self, count: int) -> slice:
        """Which pictures of a batch of `count` are this process's."""
        return share(count, self.rank, self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Make every tensor the sum of those that the processes have in its place."""
        return

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors [n, ...] of all processes, joined in the order of their ranks, so that pictures are in the batch's."""
        return tensor
