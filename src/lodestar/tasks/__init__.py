"""Training tasks, one a file. `KINDS` lists them."""

from typing import Annotated

from lodestar.config import Kinds
from lodestar.tasks.autoencode import Autoencode
from lodestar.tasks.autoregressive import TrainAutoregressive
from lodestar.tasks.base import Coupled, Export, Frozen, Learner, Phase, Task
from lodestar.tasks.classify import TrainClassifier
from lodestar.tasks.clip import MatchClip, TrainClip
from lodestar.tasks.code_prior import TrainCodePrior
from lodestar.tasks.ddgan import TrainDDGan
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.discriminate import TrainDiscriminator
from lodestar.tasks.distill import Distill
from lodestar.tasks.gan import TrainGan
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng
from lodestar.tasks.unclip import TrainUnclip
from lodestar.tasks.vqvae import TrainVQVAE

KINDS = Kinds(
    TrainDenoiser, TrainClassifier, Distill, TrainClip, MatchClip, TrainUnclip, TrainAutoregressive, Autoencode, TrainVQVAE,
    TrainCodePrior, TrainGan, TrainDDGan, TrainDiscriminator,
)  # fmt: skip
AnyTask = Annotated[Task, KINDS]

__all__ = [
    "KINDS", "AnyTask", "Autoencode", "Coupled", "Distill", "Export", "Frozen", "Learner", "MatchClip", "OptimizerConfig",
    "Phase", "Rng", "Task", "TrainAutoregressive", "TrainClassifier", "TrainClip", "TrainCodePrior", "TrainDDGan",
    "TrainDenoiser", "TrainDiscriminator", "TrainGan", "TrainUnclip", "TrainVQVAE",
]  # fmt: skip
