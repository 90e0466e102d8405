"""Losses, one a file. This union is the list of kinds."""

from typing import Annotated

from pydantic import Field

from lodestar.objectives.base import Draw, Losses, Objective
from lodestar.objectives.bound import Bound
from lodestar.objectives.hybrid import Hybrid
from lodestar.objectives.simple import Simple

AnyObjective = Annotated[Simple | Hybrid | Bound, Field(discriminator="kind")]

__all__ = ["AnyObjective", "Bound", "Draw", "Hybrid", "Losses", "Objective", "Simple"]
