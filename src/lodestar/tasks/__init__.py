"""Training problems, one a file. This union is the list of kinds."""

from typing import Annotated

from pydantic import Field

from lodestar.tasks.base import Export, Frozen, Learner, Phase, Task
from lodestar.tasks.classify import TrainClassifier
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.distill import Distill
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng

AnyTask = Annotated[TrainDenoiser | TrainClassifier | Distill, Field(discriminator="kind")]

__all__ = [
    "AnyTask",
    "Distill",
    "Export",
    "Frozen",
    "Learner",
    "OptimizerConfig",
    "Phase",
    "Rng",
    "Task",
    "TrainClassifier",
    "TrainDenoiser",
]
