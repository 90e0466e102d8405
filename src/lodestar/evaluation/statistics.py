"""What measuring starts from: the features of pictures, their moments, and what is kept of a whole set of them.

A set of pictures is measured through the features that an extractor makes of them, batch by batch. `FeatureSet` is what it says
of one batch; a `Collector` sums batches up into the `Statistics` that metrics are called with: moments always, the features
themselves only where a metric needs them, so that memory does not grow with the number of pictures where it need not.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from lodestar.config import Problem

Part = Literal["moments", "spatial", "features", "logits"]
"""What may be known of a set of pictures: moments of their features, and of their spatial features; features; class logits."""

PARTS: frozenset[Part] = frozenset(get_args(Part))

_BLOCK = 4096


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of a set of vectors, in float64. The moments of two sets together are the sum of theirs.

    Σ over the union follows from Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm", eq. 2.1: no large
    sums are subtracted, so that features far from zero lose no digits.
    """

    count: int
    mean: Tensor  # [D]
    scatter: Tensor  # [D, D], Σ (x - mean)(x - mean)ᵀ

    @classmethod
    def of(cls, features: Tensor) -> Self:
        """The moments of features [N, D], N ≥ 1, of any floating type."""
        assert features.ndim == 2 and len(features) > 0, f"features are [N, D], not {list(features.shape)}"
        features = features.double()
        mean = features.mean(0)
        centred = features - mean
        return cls(len(features), mean, centred.T @ centred)

    def __add__(self, other: Self) -> Self:
        count = self.count + other.count
        delta = other.mean - self.mean
        mean = self.mean + delta * (other.count / count)
        between = torch.outer(delta, delta) * (self.count * other.count / count)
        return type(self)(count, mean, self.scatter + other.scatter + between)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance [D, D] (divided by N - 1). Raises Problem for a single picture."""
        if self.count < 2:
            raise Problem("1 picture has no covariance: give at least 2, and thousands for a number that means something")
        return self.scatter / (self.count - 1)


@dataclass(frozen=True)
class FeatureSet:
    """What a feature extractor says of N pictures: features [N, D], logits [N, K] where it is a classifier, and spatial
    features [N, S], which tell where things are, where it has them.

    Raises Problem for features that are not finite, and for a set without pictures.
    """

    features: Tensor
    logits: Tensor | None = None
    spatial: Tensor | None = None

    def __post_init__(self) -> None:
        for each in (self.features, self.logits, self.spatial):
            assert each is None or (each.ndim == 2 and len(each) == len(self.features)), f"[N, D], not {list(each.shape)}"
        if len(self.features) == 0:
            raise Problem("there are no pictures to measure")
        bad = int((~self.features.isfinite()).any(1).sum())
        if bad:
            raise Problem(f"the features of {bad} of {len(self.features)} pictures are not finite")

    def __len__(self) -> int:
        return len(self.features)

    @property
    def parts(self) -> frozenset[Part]:
        """What can be known of a set of pictures of which batches look like this."""
        return frozenset(part for part in PARTS if part == "moments" or getattr(self, part) is not None)


@dataclass(frozen=True)
class Statistics:
    """What metrics are called with: what is known of a set of N pictures."""

    moments: Moments
    """Of the features of all pictures."""
    spatial: Moments | None = None
    """Of the spatial features of all pictures."""
    features: Tensor | None = None
    """[M, D], of all pictures or of M evenly chosen ones."""
    logits: Tensor | None = None
    """[M, K], of the same pictures."""

    @classmethod
    def of(cls, features: FeatureSet) -> Self:
        """All that there is to know of one batch."""
        spatial = None if features.spatial is None else Moments.of(features.spatial)
        return cls(Moments.of(features.features), spatial, features.features, features.logits)

    def __len__(self) -> int:
        return self.moments.count

    @property
    def parts(self) -> frozenset[Part]:
        """What is known."""
        return frozenset(part for part in PARTS if getattr(self, part) is not None)

    def count(self, part: Part) -> int:
        """Of how many pictures a part is known; 0 where it is not."""
        known = getattr(self, part)
        return 0 if known is None else known.count if isinstance(known, Moments) else len(known)


class Collector:
    """Sums up a set of pictures, batch by batch: moments always; of features and logits, those that `parts` name."""

    def __init__(self, parts: Collection[Part] = PARTS, *, some: tuple[int, int] | None = None) -> None:
        """some: (M, N) keeps the features and logits of M, evenly chosen, of N pictures; None those of all."""
        self.parts, self.some, self.count = parts, some, 0
        self._moments, self._spatial = _Sum(), _Sum()
        self._features: list[Tensor] = []
        self._logits: list[Tensor] = []

    def add(self, batch: FeatureSet) -> None:
        """Take in the next pictures."""
        self._moments.add(batch.features)
        if batch.spatial is not None and "spatial" in self.parts:
            self._spatial.add(batch.spatial)
        rows = self._chosen(len(batch))
        if "features" in self.parts:
            self._features.append(batch.features[rows])
        if batch.logits is not None and "logits" in self.parts:
            self._logits.append(batch.logits[rows])
        self.count += len(batch)

    def statistics(self) -> Statistics:
        """What is known by now. Raises Problem where there were no pictures."""
        moments = self._moments.total()
        if moments is None:
            raise Problem("there are no pictures to measure")
        features, logits = (torch.cat(rows) if rows else None for rows in (self._features, self._logits))
        return Statistics(moments, self._spatial.total(), features, logits)

    def _chosen(self, size: int) -> slice | Tensor:
        if self.some is None:
            return slice(None)
        wanted, total = self.some
        number = torch.arange(self.count, self.count + size)
        return (number + 1) * wanted // total > number * wanted // total


class _Sum:
    """Moments of rows that come a few at a time and are summed many at a time: a scatter is far larger than a batch."""

    def __init__(self) -> None:
        self.moments: Moments | None = None
        self.waiting: list[Tensor] = []

    def add(self, rows: Tensor) -> None:
        self.waiting.append(rows)
        if sum(map(len, self.waiting)) >= _BLOCK:
            self.total()

    def total(self) -> Moments | None:
        if self.waiting:
            latest = Moments.of(torch.cat(self.waiting))
            self.moments = latest if self.moments is None else self.moments + latest
            self.waiting.clear()
        return self.moments
