"""Improved precision and recall: the share of each set within the manifold of the other.

Kynkäänniemi et al. 2019, arXiv:1904.06991, eq. 1 and 2. The manifold of a set is the union of balls around its members, each as
large as the distance to the k-th nearest other member:

    precision = share of generated pictures inside the reference's manifold (fidelity)
    recall    = share of reference pictures inside the generated manifold (diversity)
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.neighbours import inside, squared_radii
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics


class PrecisionRecall(BaseMetric):
    """Precision and recall (0 to 1) with the k-th nearest neighbour, and their harmonic mean ``f_score``."""

    kind: Literal["precision_recall"] = "precision_recall"
    k: int = Field(default=3, ge=1, le=100_000)
    needs: ClassVar[Part] = "features"

    @property
    def least(self) -> int:
        return self.k + 1

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        precision, recall = precision_recall(*self.both(generated, reference), self.k)
        return {"precision": precision, "recall": recall, "f_score": f_score(precision, recall)}


def precision_recall(generated: Tensor, reference: Tensor, k: int = 3) -> tuple[float, float]:
    """Precision and recall of generated [M, D] against reference [N, D], M, N > k, in float64."""
    precision = (inside(generated, reference, squared_radii(reference, k)) > 0).double().mean()
    recall = (inside(reference, generated, squared_radii(generated, k)) > 0).double().mean()
    return float(precision), float(recall)


def f_score(precision: float, recall: float) -> float:
    """The harmonic mean 2 p r / (p + r); 0 where both are 0."""
    return 2 * precision * recall / max(1e-5, precision + recall)
