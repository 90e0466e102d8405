"""Training tasks, one a file. `KINDS` lists them."""

from typing import Annotated

from lodestar.config import Kinds
from lodestar.tasks.base import Export, Frozen, Learner, Phase, Task
from lodestar.tasks.classify import TrainClassifier
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.distill import Distill
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng

KINDS = Kinds(TrainDenoiser, TrainClassifier, Distill)
AnyTask = Annotated[Task, KINDS]

__all__ = [
    "KINDS", "AnyTask", "Distill", "Export", "Frozen", "Learner", "OptimizerConfig", "Phase", "Rng", "Task", "TrainClassifier",
    "TrainDenoiser",
]  # fmt: skip
