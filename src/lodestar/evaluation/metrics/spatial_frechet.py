"""Fréchet distance of spatial features (sFID), sensitive to positions, unlike features averaged over places.

Nash et al. 2021, arXiv:2103.03841, section 5.1: the first 7 channels of one of Inception's inner maps, flattened (`frechet.py`
has the distance). Other extractors use their last map before the average.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.metrics.frechet import frechet_distance
from lodestar.evaluation.statistics import Part, Statistics


class SpatialFrechet(BaseMetric):
    """Fréchet distance of the spatial features, ``spatial_frechet``; falls with the number of pictures, too."""

    kind: Literal["spatial_frechet"] = "spatial_frechet"
    needs: ClassVar[Part] = "spatial"

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        ours, theirs = self.known(generated.spatial), self.known(reference.spatial)
        return {"spatial_frechet": float(frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance))}
