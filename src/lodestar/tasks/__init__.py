"""Training tasks, one a file. `KINDS` lists them."""

from typing import Annotated

from lodestar.config import Kinds
from lodestar.tasks.base import Coupled, Export, Frozen, Learner, Phase, Task
from lodestar.tasks.classify import TrainClassifier
from lodestar.tasks.clip import MatchClip, TrainClip
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.distill import Distill
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng

KINDS = Kinds(TrainDenoiser, TrainClassifier, Distill, TrainClip, MatchClip)
AnyTask = Annotated[Task, KINDS]

__all__ = [
    "KINDS", "AnyTask", "Coupled", "Distill", "Export", "Frozen", "Learner", "MatchClip", "OptimizerConfig", "Phase", "Rng",
    "Task", "TrainClassifier", "TrainClip", "TrainDenoiser",
]  # fmt: skip
