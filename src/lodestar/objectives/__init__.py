"""Losses, one a file. This union lists the kinds."""

from typing import Annotated

from pydantic import Field

from lodestar.objectives.base import Draw, Losses, Objective
from lodestar.objectives.bound import Bound
from lodestar.objectives.huber import Huber
from lodestar.objectives.hybrid import Hybrid
from lodestar.objectives.l1 import L1
from lodestar.objectives.regression import Regression
from lodestar.objectives.simple import Simple
from lodestar.objectives.weighting import P2, AnyWeighting, MinSNR

AnyObjective = Annotated[Simple | L1 | Huber | Hybrid | Bound, Field(discriminator="kind")]

__all__ = [
    "L1", "P2", "AnyObjective", "AnyWeighting", "Bound", "Draw", "Huber", "Hybrid", "Losses", "MinSNR", "Objective",
    "Regression", "Simple",
]  # fmt: skip
