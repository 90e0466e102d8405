"""The metrics that pictures are measured by. A new one is a file here and a name in `Metric`.

Each is a configuration that is called with the `Statistics` of the generated pictures and of the reference and answers its
numbers by name.
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
"""What is measured where nothing else is asked for, as far as the extractor and the reference go."""

PUBLISHED: tuple[Metric, ...] = (Frechet(), SpatialFrechet(), Score(splits="consecutive"), PrecisionRecall())
"""What tables of the field hold (ADM's evaluator), in the form in which they are published."""

__all__ = [
    "CMMD", "KID", "METRICS", "PUBLISHED", "DensityCoverage", "Frechet", "Metric", "Nearest", "PrecisionRecall", "Score",
    "SpatialFrechet",
]  # fmt: skip
