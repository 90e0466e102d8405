"""Metrics of pictures. A new one is a file here and a name in `Metric`.

A metric is a configuration, called with the `Statistics` of the generated pictures and of the reference; it returns its numbers
by name.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.evaluation.metrics.cmmd import CMMD
from lodestar.evaluation.metrics.density_coverage import DensityCoverage
from lodestar.evaluation.metrics.frechet import Frechet
from lodestar.evaluation.metrics.inception_score import Score
from lodestar.evaluation.metrics.kid import KID
from lodestar.evaluation.metrics.nearest import Nearest
from lodestar.evaluation.metrics.precision_recall import PrecisionRecall
from lodestar.evaluation.metrics.spatial_frechet import SpatialFrechet

Metric = Annotated[
    Frechet | SpatialFrechet | Score | KID | CMMD | PrecisionRecall | DensityCoverage | Nearest, Field(discriminator="kind")
]

METRICS: tuple[Metric, ...] = (Frechet(), SpatialFrechet(), Score(), KID(), PrecisionRecall(), DensityCoverage())
"""Default metrics, as far as extractor and reference allow."""

PUBLISHED: tuple[Metric, ...] = (Frechet(), SpatialFrechet(), Score(splits="consecutive"), PrecisionRecall())
"""Metrics of the field's tables (ADM's evaluator), in their published form."""

__all__ = [
    "CMMD", "KID", "METRICS", "PUBLISHED", "DensityCoverage", "Frechet", "Metric", "Nearest", "PrecisionRecall", "Score",
    "SpatialFrechet",
]  # fmt: skip
