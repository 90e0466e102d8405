"""Batches of a source: in a shuffled order that is a function of (seed, images seen) for training, and in its own order.

Picture n of a training run (n = images seen before it) is element n mod N of the permutation of epoch n div N, and is cropped and
flipped by the generator seeded (seed, n). So a run that starts at n = k gets what an uninterrupted one would have got from there.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from lodestar.data.source import Source
from lodestar.data.transforms import Transforms

_ORDER, _TRANSFORM = 0, 1
"""The two uses of randomness, so that neither repeats the other's numbers."""


@dataclass(frozen=True)
class Batch:
    """Pictures and, where the source has them, their class numbers."""

    image: Tensor
    """uint8 [B,C,H,W]."""
    label: Tensor | None
    """int64 [B]."""


def batches(
    source: Source,
    batch_size: int,
    *,
    seed: int,
    images_seen: int = 0,
    transforms: Transforms = Transforms(),  # noqa: B008 (it is frozen)
    workers: int = 1,
) -> Iterator[Batch]:
    """Shuffled batches without end, across epochs, from the picture after `images_seen` on.

    Each of `workers` threads makes a batch ahead; with 0 a batch is made when asked for. The batches are the same either way.
    Raises Problem (at the batch that is concerned) for a bad picture or label, and at once when pictures are too small to crop.
    """
    transforms.result_size(source.size)
    return _batches(source, batch_size, seed, images_seen, transforms, workers)


def _batches(
    source: Source, batch_size: int, seed: int, images_seen: int, transforms: Transforms, workers: int
) -> Iterator[Batch]:
    # Threads work on neighbouring batches, so at most two epochs' orders are in use.
    order = lru_cache(maxsize=2)(lambda epoch: permutation(source, seed, epoch))

    def make(start: int) -> Batch:
        images, labels = [], []
        for position in range(start, start + batch_size):
            epoch, place = divmod(position, len(source))
            image, label = source[int(order(epoch)[place])]
            images.append(transforms(image, np.random.default_rng((seed, _TRANSFORM, position))))
            labels.append(label)
        return _collate(images, labels)

    if workers == 0:
        while True:
            yield make(images_seen)
            images_seen += batch_size
    pool = ThreadPoolExecutor(workers, thread_name_prefix="lodestar-data")
    try:
        ahead: deque[Future[Batch]] = deque()
        while True:
            while len(ahead) <= workers:
                ahead.append(pool.submit(make, images_seen))
                images_seen += batch_size
            yield ahead.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)


def sequential(source: Source, batch_size: int) -> Iterator[Batch]:
    """Every picture once, in the source's order; with `skip_bad`, those that are bad left out. Raises Problem.

    The last batch may be smaller, and one with bad pictures is.
    """
    for start in range(0, len(source), batch_size):
        indices = range(start, min(start + batch_size, len(source)))
        found = [(image, source.label(index)) for index in indices if (image := source.image(index)) is not None]
        if found:
            yield _collate([image for image, _ in found], [label for _, label in found])


def permutation(source: Source, seed: int, epoch: int) -> np.ndarray:
    """The order [N] of one epoch: shuffled within windows that are cheap to read at random, windows in random order."""
    rng = np.random.default_rng((seed, _ORDER, epoch))
    return np.concatenate([rng.permutation(window) for window in source.rows.windows(rng)])


def _collate(images: list[np.ndarray], labels: list[int | None]) -> Batch:
    label = None if None in labels else torch.tensor(labels, dtype=torch.int64)
    return Batch(torch.from_numpy(np.stack(images)), label)
