"""The metrics that pictures are measured by. A new one is a file here and a name in `Metric`.

Each is a configuration that is called with the generated and the reference `FeatureSet` and answers its numbers by name.
"""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from lodestar.evaluate.metrics.frechet import Frechet
from lodestar.evaluate.metrics.inception_score import Score
from lodestar.evaluate.metrics.kid import KID
from lodestar.evaluate.metrics.precision_recall import PrecisionRecall

Metric = Annotated[Frechet | Score | KID | PrecisionRecall, Field(discriminator="kind")]

__all__ = ["KID", "Frechet", "Metric", "PrecisionRecall", "Score"]
