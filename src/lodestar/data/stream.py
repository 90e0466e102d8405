"""Batches of a source: in a shuffled order that is a function of (seed, images seen) for training, and in its own order.

Picture n of a training run (n = images seen before it) is element n mod N of the permutation of epoch n div N, and is cropped and
flipped, and one of its captions drawn, by generators seeded (seed, n). So a run that starts at n = k continues exactly like an
uninterrupted run.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from lodestar.data.batch import Batch, Examples, Row, good_row, share
from lodestar.data.transforms import Transforms

_ORDER, _TRANSFORM, _TEXT = 0, 1, 2
"""The uses of randomness, so that none repeats another's numbers."""


@dataclass(frozen=True)
class Shuffled:
    """A `Stream` of a data set, shuffled anew in every epoch, its pictures cropped and mirrored."""

    source: Examples
    batch_size: int | Callable[[int], int]
    """Examples in a batch: a number, or a function of the number of examples seen before it."""
    transforms: Transforms = Transforms()
    workers: int = 1
    """Threads that each make a batch ahead; with 0 a batch is made when asked for. The batches are the same either way."""

    def batches(self, seed: int, images_seen: int = 0, rank: int = 0, world: int = 1) -> Generator[Batch]:
        """See `Stream`. Raises Problem, at the batch that is concerned, for a bad picture or label."""
        # Threads work on neighbouring batches, so at most two epochs' orders are in use.
        order = lru_cache(maxsize=2)(lambda epoch: permutation(self.source, seed, epoch))

        def size(start: int) -> int:
            return self.batch_size if isinstance(self.batch_size, int) else self.batch_size(start)

        def make(start: int) -> Batch:
            rows, mine = [], share(size(start), rank, world)
            for position in range(start + mine.start, start + mine.stop):
                epoch, place = divmod(position, len(self.source))
                rows.append(self._drawn(good_row(self.source, int(order(epoch)[place])), seed, position))
            return Batch.collate(rows)

        if self.workers == 0:
            while True:
                yield make(images_seen)
                images_seen += size(images_seen)
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="lodestar-data")
        try:
            ahead: deque[Future[Batch]] = deque()
            while True:
                while len(ahead) <= self.workers:
                    ahead.append(pool.submit(make, images_seen))
                    images_seen += size(images_seen)
                yield ahead.popleft().result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _drawn(self, row: Row, seed: int, position: int) -> Row:
        if "image" in row:
            row = {**row, "image": self.transforms(row["image"], np.random.default_rng((seed, _TRANSFORM, position)))}
        return _of_several(row, lambda count: int(np.random.default_rng((seed, _TEXT, position)).integers(count)))


def sequential(source: Examples, batch_size: int, rows: range | None = None) -> Iterator[Batch]:
    """Every row once, or those of a range, in the source's order. Raises Problem.

    Those that are bad are left out where the source leaves them out. The last batch may be smaller, and one with bad rows is. Of
    several texts the first is taken.
    """
    rows = range(len(source)) if rows is None else rows
    for start in range(0, len(rows), batch_size):
        found = map(source.row, rows[start : start + batch_size])
        if good := [row for row in found if row is not None]:
            yield Batch.collate([_of_several(row, lambda count: 0) for row in good])


def _of_several(row: Row, draw: Callable[[int], int]) -> Row:
    """The row with one text in the place of several, by its number as drawn of their count."""
    return {name: value[draw(len(value))] if isinstance(value, tuple) else value for name, value in row.items()}


def permutation(source: Examples, seed: int, epoch: int) -> np.ndarray:
    """The order [N] of one epoch: shuffled within windows that are cheap to read at random, windows in random order."""
    rng = np.random.default_rng((seed, _ORDER, epoch))
    return np.concatenate([rng.permutation(window) for window in source.windows(rng)])
