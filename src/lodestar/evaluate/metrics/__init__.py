"""The metrics that pictures are measured by. A new one is a file here and a name in `Metric`.

Each is a configuration that is called with the `Statistics` of the generated pictures and of the reference and answers its
numbers by name.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.evaluate.metrics.cmmd import CMMD
from lodestar.evaluate.metrics.density_coverage import DensityCoverage
from lodestar.evaluate.metrics.frechet import Frechet
from lodestar.evaluate.metrics.inception_score import Score
from lodestar.evaluate.metrics.kid import KID
from lodestar.evaluate.metrics.nearest import Nearest
from lodestar.evaluate.metrics.precision_recall import PrecisionRecall
from lodestar.evaluate.metrics.spatial_frechet import SpatialFrechet

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
