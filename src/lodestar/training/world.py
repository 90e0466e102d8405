"""The processes of a run: each computes a share of every batch, and all take the same step."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lodestar.data.batch import share


class World:
    """A process of a run, with its communication. This class is for a single process; several override all but `share`."""

    rank: int = 0
    """Index of the process."""
    size: int = 1
    """Number of processes."""

    def share(self, count: int) -> slice:
        """The rows of a batch of `count` that belong to this process."""
        return share(count, self.rank, self.size)

    def sum(self, tensors: Sequence[Tensor]) -> None:
        """Replace every tensor by its sum over the processes."""
        return

    def gather(self, tensor: Tensor) -> Tensor:
        """The tensors [n, ...] of all processes, concatenated by rank, in the order of the batch."""
        return tensor
