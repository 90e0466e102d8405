"""Density and coverage: precision and recall less sensitive to outliers.

Naeem et al. 2020, arXiv:2002.09797, eq. 3 and 4. Around each picture of the reference is a ball as large as the distance to its
k-th nearest other; the less regular manifold of the generated pictures plays no part:

    density  = mean number of balls that contain a generated picture, divided by k (fidelity; 1 for equal distributions, no bound)
    coverage = share of the balls that hold a generated picture (diversity; 0 to 1)

For equal distributions and equally many pictures coverage is about 1 - 2⁻ᵏ, and density 1 (section 3.3).
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from lodestar.core.neighbours import inside, nearest, squared_radii, within
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics


class DensityCoverage(BaseMetric):
    """Density and coverage (``density``, ``coverage``) with the k-th nearest neighbour."""

    kind: Literal["density_coverage"] = "density_coverage"
    k: int = Field(default=5, ge=1, le=100_000)
    needs: ClassVar[Part] = "features"

    @property
    def least(self) -> int:
        return self.k + 1

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        x, y = self.both(generated, reference)
        radii2 = squared_radii(y, self.k)
        density = inside(x, y, radii2).double().mean() / self.k
        coverage = within(nearest(y, x)[0][:, 0], radii2).double().mean()
        return {"density": float(density), "coverage": float(coverage)}
