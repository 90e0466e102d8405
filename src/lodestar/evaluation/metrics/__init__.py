"""Metrics of pictures. A new one is a file here and a name in `Metric`.

A metric is a configuration, called with the `Statistics` of the generated pictures and of the reference; it returns its numbers
by name. A metric of prompts is called with the marks that it gave pictures and their prompts.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.evaluation.metrics.caption import Caption
from lodestar.evaluation.metrics.clip_score import ClipScore
from lodestar.evaluation.metrics.cmmd import CMMD
from lodestar.evaluation.metrics.density_coverage import DensityCoverage
from lodestar.evaluation.metrics.frechet import Frechet
from lodestar.evaluation.metrics.inception_score import Score
from lodestar.evaluation.metrics.kid import KID
from lodestar.evaluation.metrics.nearest import Nearest
from lodestar.evaluation.metrics.precision_recall import PrecisionRecall
from lodestar.evaluation.metrics.spatial_frechet import SpatialFrechet

FeatureMetric = Annotated[
    Frechet | SpatialFrechet | Score | KID | CMMD | PrecisionRecall | DensityCoverage | Nearest, Field(discriminator="kind")
]

Metric = Annotated[FeatureMetric | Caption | ClipScore, Field(discriminator="kind")]

METRICS: tuple[FeatureMetric, ...] = (Frechet(), SpatialFrechet(), Score(), KID(), PrecisionRecall(), DensityCoverage())
"""Default metrics, as far as extractor and reference allow."""

PUBLISHED: tuple[FeatureMetric, ...] = (Frechet(), SpatialFrechet(), Score(splits="consecutive"), PrecisionRecall())
"""Metrics of the field's tables (ADM's evaluator), in their published form."""

__all__ = [
    "CMMD", "KID", "METRICS", "PUBLISHED", "Caption", "ClipScore", "DensityCoverage", "FeatureMetric", "Frechet", "Metric",
    "Nearest", "PrecisionRecall", "Score", "SpatialFrechet",
]  # fmt: skip
