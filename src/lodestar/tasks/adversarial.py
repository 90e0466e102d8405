"""Adversarial training: a discriminator and a generator in two phases, each with an optimizer of its own.

The discriminator takes its step first, then the generator, against the discriminator after that step.
"""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from pydantic import Field
from torch import Tensor, nn

from lodestar.data.batch import Batch
from lodestar.nets.gan import Discriminator, DiscriminatorConfig
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.objectives.adversarial import AnyAdversarial, NonSaturating, Wasserstein, gradient_penalty, squared_slope
from lodestar.tasks.base import Learner, Phase, Task
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng


class AdversarialTask(Task, abc.ABC):
    """A generator trained against a discriminator."""

    loss: AnyAdversarial = NonSaturating()
    r1: float = Field(default=0.0, ge=0, le=1e6)
    """Weight γ of the R1 penalty γ/2·‖∇D‖² on real samples; 0 is none."""
    r1_every: int = Field(default=1, ge=1, le=10_000)
    """Interval of the R1 penalty in steps, of which it then counts as many times (Karras et al. 2020)."""
    generator_every: int = Field(default=1, ge=1, le=10_000)
    """Steps of the discriminator for one of the generator."""
    discriminator_optimizer: OptimizerConfig | None = None
    """Optimizer of the discriminator; None is one with the run's settings."""


@dataclass(frozen=True)
class Game:
    """Samples of a batch for both players."""

    real: Tensor
    """Real samples [B, C, H, W]."""
    fake: Callable[[], Tensor]
    """Maker of as many samples, through which the generator's gradient flows."""
    logits: Callable[[Tensor, bool], Tensor]
    """Logits [B] of the discriminator; True for gradients that have gradients."""


class AdversarialLearner(Learner):
    """A learner of two players, which are `generator` and `discriminator` in its module."""

    def __init__(self, task: AdversarialTask, generator: nn.Module, discriminator: DiscriminatorConfig, device: torch.device):
        self.adversarial, self.device = task, device
        self.discriminator: Discriminator = discriminator.build()
        self.module = place(nn.ModuleDict({"generator": generator, "discriminator": self.discriminator}), device)
        self._steps = torch.zeros((), dtype=torch.int64)

    @abc.abstractmethod
    def game(self, batch: Batch, rng: Rng) -> Game:
        """Samples of a piece of a batch; all randomness is from rng."""

    def phases(self) -> list[Phase]:
        task, (generator, discriminator) = self.adversarial, self.module.children()
        return [
            Phase("discriminator", list(discriminator.parameters()), self.tell, self.remember, task.discriminator_optimizer),
            Phase("generator", list(generator.parameters()), self.fool, every=task.generator_every),
        ]

    def tell(self, batch: Batch, rng: Rng) -> Losses:
        """The discriminator's loss, with its penalties."""
        task, game = self.adversarial, self.game(batch, rng)
        with torch.no_grad():
            fake = game.fake()
        on_real, on_fake = (game.logits(each, False) for each in (game.real, fake))
        terms = {"real": on_real.detach(), "fake": on_fake.detach()}
        total = task.loss.real(on_real) + task.loss.fake(on_fake)
        if isinstance(task.loss, Wasserstein):
            slope = gradient_penalty(lambda x: game.logits(x, True), game.real, fake, rng.uniform())
            total, terms["penalty"] = total + task.loss.penalty * slope, slope.detach()
        if task.r1 and int(self._steps) % task.r1_every == 0:
            square = squared_slope(lambda x: game.logits(x, True), game.real)
            total, terms["r1"] = total + 0.5 * task.r1 * task.r1_every * square, square.detach()
        return Losses(total, terms)

    def fool(self, batch: Batch, rng: Rng) -> Losses:
        """The generator's loss."""
        game = self.game(batch, rng)
        return Losses(self.adversarial.loss.fooling(game.logits(game.fake(), False)))

    def remember(self, noted: Mapping[str, Tensor]) -> None:
        """Count a step of the discriminator, and iterate its spectral norms."""
        self._steps += 1
        self.discriminator.iterate()

    def memory(self) -> Mapping[str, Tensor]:
        return {"steps": self._steps}
