"""Training problems, one a file. This union is the list of kinds."""

from typing import Annotated

from pydantic import Field

from lodestar.tasks.base import DataFacts, Learner, Phase, Pictures, Task
from lodestar.tasks.classify import TrainClassifier
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.distill import Distill
from lodestar.tasks.rng import Rng

AnyTask = Annotated[TrainDenoiser | TrainClassifier | Distill, Field(discriminator="kind")]

__all__ = ["AnyTask", "DataFacts", "Distill", "Learner", "Phase", "Pictures", "Rng", "Task", "TrainClassifier", "TrainDenoiser"]
