"""Statistics of pictures: features, their moments, and everything metrics need of a set.

A set of pictures is measured by an extractor's features, batch by batch. `FeatureSet` holds one batch; a `Collector` sums batches
up into `Statistics` for the metrics: moments always, the features themselves only if a metric needs them, so memory need not grow
with the number of pictures.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal, Self, get_args

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.world import World

Part = Literal["moments", "spatial", "features", "logits"]
"""Part of the statistics: moments of features, moments of spatial features, features, class logits."""

PARTS: frozenset[Part] = frozenset(get_args(Part))

_BLOCK = 4096


@dataclass(frozen=True)
class Moments:
    """Mean and scatter of a set of vectors, in float64. Moments of disjoint sets add.

    Σ over the union follows from Chan, Golub, LeVeque 1979, "Updating formulae and a pairwise algorithm", eq. 2.1: no large sums
    are subtracted, so features far from zero lose no digits.
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

    def over(self, world: World) -> Self:
        """The moments of the sets of all processes."""
        if world.size == 1:
            return self
        count, total = torch.tensor([self.count], dtype=torch.float64, device=self.mean.device), self.mean * self.count
        world.sum([count, total])
        mean = total / count
        apart = self.mean - mean
        scatter = self.scatter + self.count * torch.outer(apart, apart)
        world.sum([scatter])
        return type(self)(int(count), mean, scatter)

    @property
    def covariance(self) -> Tensor:
        """The unbiased covariance [D, D] (divided by N - 1). Raises Problem for a single picture."""
        if self.count < 2:
            raise Problem("1 picture has no covariance: give at least 2, and thousands for a number that means something")
        return self.scatter / (self.count - 1)


@dataclass(frozen=True)
class FeatureSet:
    """Output of an extractor for N pictures: features [N, D], and optionally logits [N, K] and spatial features [N, S].

    Logits are a classifier's; spatial features keep positions. Raises Problem for features that are not finite, and for an empty
    set.
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
        """Parts available in a set of such batches."""
        return frozenset(part for part in PARTS if part == "moments" or getattr(self, part) is not None)


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of N pictures, the input of metrics."""

    moments: Moments
    """Moments of all pictures' features."""
    spatial: Moments | None = None
    """Moments of all pictures' spatial features."""
    features: Tensor | None = None
    """Features [M, D], of all pictures or of M evenly chosen ones."""
    logits: Tensor | None = None
    """Logits [M, K], of the same pictures."""

    @classmethod
    def of(cls, features: FeatureSet) -> Self:
        """The statistics of a single batch."""
        spatial = None if features.spatial is None else Moments.of(features.spatial)
        return cls(Moments.of(features.features), spatial, features.features, features.logits)

    def __len__(self) -> int:
        return self.moments.count

    @property
    def parts(self) -> frozenset[Part]:
        """Available parts."""
        return frozenset(part for part in PARTS if getattr(self, part) is not None)

    def count(self, part: Part) -> int:
        """Number of pictures behind a part; 0 if missing."""
        known = getattr(self, part)
        return 0 if known is None else known.count if isinstance(known, Moments) else len(known)


class Collector:
    """A running summary of a set of pictures, batch by batch: moments always; features and logits if named by `parts`."""

    def __init__(
        self,
        parts: Collection[Part] = PARTS,
        *,
        some: tuple[int, int] | None = None,
        world: World = World(),  # noqa: B008 (it has no state)
    ) -> None:
        """some: (M, N) keeps the features and logits of M, evenly chosen, of N pictures; None keeps all.

        world: the processes among which the pictures are shared, each adding its own.
        """
        self.parts, self.some, self.count, self.world = parts, some, 0, world
        self._moments, self._spatial = _Sum(), _Sum()
        self._features: list[Tensor] = []
        self._logits: list[Tensor] = []

    def add(self, batch: FeatureSet) -> None:
        """Add the next batch."""
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
        """The statistics so far, of all processes. Raises Problem without any picture."""
        moments, spatial, world = self._moments.total(), self._spatial.total(), self.world
        if moments is None:
            raise Problem("there are no pictures to measure")
        features, logits = (world.gather(torch.cat(rows)) if rows else None for rows in (self._features, self._logits))
        return Statistics(moments.over(world), None if spatial is None else spatial.over(world), features, logits)

    def _chosen(self, size: int) -> slice | Tensor:
        if self.some is None:
            return slice(None)
        wanted, total = self.some
        number = torch.arange(self.count, self.count + size) + self.world.rows(total).start
        return (number + 1) * wanted // total > number * wanted // total


class _Sum:
    """Moments of rows that arrive few at a time and are summed many at a time: a scatter is far larger than a batch."""

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
