"""Improved precision and recall: how much of one set lies within the manifold of the other.

Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2. The manifold of a set is the union of balls around its members, each
as large as the distance to the k-th nearest other member:

    precision = share of generated pictures inside the reference's manifold (fidelity)
    recall    = share of reference pictures inside the generated manifold (diversity)

Distances are made in blocks, so that memory grows with the number of pictures and not with its square.
"""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.evaluate.statistics import FeatureSet

_BLOCK = 1024


class PrecisionRecall(Config):
    """``precision`` and ``recall`` (0 to 1) with the k-th nearest neighbour, and their harmonic mean ``f_score``."""

    kind: Literal["precision_recall"] = "precision_recall"
    k: int = Field(default=3, ge=1)

    @property
    def least(self) -> int:
        """Pictures that each set needs."""
        return self.k + 1

    def __call__(self, generated: FeatureSet, reference: FeatureSet) -> dict[str, float]:
        fewer = min(len(generated), len(reference))
        if fewer <= self.k:
            raise Problem(
                f"metric 'precision_recall' with k={self.k} needs more than {self.k} pictures in each set, and one has {fewer}"
            )
        precision, recall = precision_recall(generated.features, reference.features, self.k)
        return {"precision": precision, "recall": recall, "f_score": f_score(precision, recall)}


def precision_recall(generated: Tensor, reference: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated [M, D] against reference [N, D], M, N > k, in float64."""
    precision = covered(generated, reference, squared_radii(reference, k)).double().mean()
    recall = covered(reference, generated, squared_radii(generated, k)).double().mean()
    return float(precision), float(recall)


def f_score(precision: float, recall: float) -> float:
    """The harmonic mean 2 p r / (p + r); 0 where both are 0."""
    return 2 * precision * recall / max(1e-5, precision + recall)


def squared_radii(members: Tensor, k: int = 3) -> Tensor:
    """Squared distance [N] of each member [N, D] to its k-th nearest other member, N > k, in float64."""
    members, others = _centred(members, members)
    # The nearest of all is the member itself, so the k-th other one is number k + 1.
    return torch.cat([_squared_distances(block, others).kthvalue(k + 1).values for block in members.split(_BLOCK)])


def covered(points: Tensor, centres: Tensor, radii2: Tensor) -> Tensor:
    """Whether each point [M, D] lies within any ball, or on its edge: centres [N, D], squared radii [N]; bool [M]."""
    points, centres = _centred(points, centres)
    return torch.cat([(_squared_distances(block, centres) <= radii2).any(1) for block in points.split(_BLOCK)])


def _centred(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Both in float64 with one origin amid them: products of features far from zero would swallow their differences."""
    origin = y.double().mean(0)
    return x.double() - origin, y.double() - origin


def _squared_distances(x: Tensor, y: Tensor) -> Tensor:
    """|x_i - y_j|² [M, N] by one matrix product, many times as fast as differences; rounding must not make it negative."""
    return ((x * x).sum(1, keepdim=True) - 2 * (x @ y.T) + (y * y).sum(1)).clamp_(min=0)
