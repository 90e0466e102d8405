"""Metrics of pictures. `KINDS` lists those of features, `PROMPTED` those of pictures beside their prompts.

A metric is a configuration, called with the `Statistics` of the generated pictures and of the reference; it returns its numbers
by name. A metric of prompts is called with the marks that it gave pictures and their prompts.
"""

from __future__ import annotations

from typing import Annotated

from lodestar.config import Kinds
from lodestar.evaluation.metrics.base import BaseMetric, PromptedMetric
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

KINDS = Kinds(Frechet, SpatialFrechet, Score, KID, CMMD, PrecisionRecall, DensityCoverage, Nearest)
FeatureMetric = Annotated[BaseMetric, KINDS]

PROMPTED = Kinds(Caption, ClipScore)
Metric = FeatureMetric | Annotated[PromptedMetric, PROMPTED]

METRICS: tuple[FeatureMetric, ...] = (Frechet(), SpatialFrechet(), Score(), KID(), PrecisionRecall(), DensityCoverage())
"""Default metrics, as far as extractor and reference allow."""

PUBLISHED: tuple[FeatureMetric, ...] = (Frechet(), SpatialFrechet(), Score(splits="consecutive"), PrecisionRecall())
"""Metrics of the field's tables (ADM's evaluator), in their published form."""

__all__ = [
    "CMMD", "KID", "KINDS", "METRICS", "PROMPTED", "PUBLISHED", "BaseMetric", "Caption", "ClipScore",
    "DensityCoverage", "FeatureMetric", "Frechet", "Metric", "Nearest", "PrecisionRecall", "PromptedMetric", "Score",
    "SpatialFrechet",
]  # fmt: skip
