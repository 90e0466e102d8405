"""Training problems, one a file. This union is the list of kinds."""

from typing import Annotated

from pydantic import Field

from lodestar.tasks.base import Facts, Learner, Phase, Pictures, Task
from lodestar.tasks.classify import Classify
from lodestar.tasks.denoise import Denoise
from lodestar.tasks.distill import Distill

AnyTask = Annotated[Denoise | Classify | Distill, Field(discriminator="kind")]

__all__ = ["AnyTask", "Classify", "Denoise", "Distill", "Facts", "Learner", "Phase", "Pictures", "Task"]
