"""What measuring starts from: the features of a set of pictures, their moments, and files that keep them.

A set of pictures is measured through the features that an extractor makes of them. `FeatureSet` holds these, `Moments` sums
them up as a mean and a covariance, batch by batch, and `cached` keeps the features of a reference under a key of its content.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Problem

KIND = "features"
"""What a file of them is, among checkpoints."""
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

    @cached_property
    def moments(self) -> Moments:
        """Mean and covariance of the features, made block by block: no float64 copy of them all is held."""
        first, *rest = (Moments.of(block) for block in self.features.split(_BLOCK))
        return sum(rest, start=first)


def save(path: Path, features: FeatureSet, config: str = "{}") -> None:
    """Write a FeatureSet as a checkpoint of features, atomically. config: what else there is to say of them, JSON."""
    tensors = {"features": features.features} | ({} if features.logits is None else {"logits": features.logits})
    checkpoint.save(path, KIND, config, tensors, {"count": len(features)})


def load(path: Path) -> tuple[FeatureSet, str]:
    """Read what `save` wrote, in float32, and its `config`. Raises Problem for a missing, damaged or other file."""
    header, tensors = checkpoint.load(path, KIND)
    return FeatureSet(**{name: tensor.float() for name, tensor in tensors.items()}), header.config


def cached(folder: str | Path, key: str, make: Callable[[], FeatureSet]) -> FeatureSet:
    """The features kept in `folder` under `key`, or those that `make` gives, which are then kept.

    A kept file that cannot be read is made again: nothing is lost by that but time.
    """
    path = Path(folder) / f"{key}.safetensors"
    if path.exists():
        try:
            return load(path)[0]
        except Problem:
            pass
    features = make()
    save(path, features)
    return features
