"""Training a denoising diffusion GAN (Xiao et al. 2022): a diffusion model of a few large steps, whose x̂₀ is drawn.

A latent makes the generator's x̂₀ a draw, and x_s follows by the posterior of the step. The discriminator sees x_s beside x_t, the
data's or those of the generator, and is told the level t.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Literal, Self

import torch
from torch import Tensor

from lodestar.conditions import LabelCondition
from lodestar.config import Problem
from lodestar.core.level import stacked
from lodestar.core.plan import parse_plan
from lodestar.core.transition import Transition
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.diffusion import Diffusion
from lodestar.generators.request import request
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.gan import ResidualDiscriminatorConfig
from lodestar.tasks.adversarial import AdversarialLearner, AdversarialTask, Game
from lodestar.tasks.base import PREVIEWS, Export
from lodestar.tasks.denoise import TrainDenoiser
from lodestar.tasks.gan import modes
from lodestar.tasks.rng import Rng


class TrainDDGan(AdversarialTask):
    """A denoising diffusion GAN, for the steps of the model's own plan."""

    kind: Literal["ddgan"] = "ddgan"
    model: DiffusionConfig = DiffusionConfig()
    discriminator: ResidualDiscriminatorConfig = ResidualDiscriminatorConfig()
    conditional: bool = True
    """Condition on the classes of the data."""

    @property
    def conditions(self) -> bool:
        return self.conditional

    def resolve(self, facts: DataFacts) -> Self:
        denoiser = self.model.denoiser
        if denoiser.latent is None:
            raise Problem("task.model.denoiser.latent is null: a denoising diffusion GAN draws with a latent: give its numbers")
        if denoiser.variance != "fixed":
            raise Problem(f"task.model.denoiser.variance is {denoiser.variance!r}: the posterior's is known: set 'fixed'")
        if others := [each.kind for each in denoiser.conditions if not isinstance(each, LabelCondition)]:
            raise Problem(f"condition {others[0]!r}: a denoising diffusion GAN is told classes alone")
        parse_plan(self.model.steps).steps(self.model.schedule)
        plain = self.model.replace(denoiser=denoiser.replace(latent=None))
        model = TrainDenoiser(model=plain, conditional=self.conditional, label_drop=0.0).resolve(facts).model
        model = model.replace(denoiser=model.denoiser.replace(latent=denoiser.latent))
        # A picture at the end of a step, and one at its beginning.
        channels, classes = 2 * model.denoiser.channels, model.denoiser.classes
        self.discriminator.check_size(model.size)
        opponent = self.discriminator.replace(in_channels=channels, classes=classes, timed=True)
        return self.replace(model=model, discriminator=opponent)

    def build(self, device: torch.device, dtype: torch.dtype) -> DDGanLearner:
        return DDGanLearner(self, device, dtype)


class DDGanLearner(AdversarialLearner):
    """The learner of `TrainDDGan`."""

    def __init__(self, task: TrainDDGan, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.model = task, Diffusion(task.model)
        super().__init__(task, self.model, task.discriminator, device)
        self.model.denoiser.dtype = dtype
        steps = parse_plan(task.model.steps).steps(task.model.schedule)
        self.t, self.s = (stacked(levels).to(device) for levels in ([step.t for step in steps], [step.s for step in steps]))

    def game(self, batch: Batch, rng: Rng) -> Game:
        model, denoiser = self.task.model, self.model.denoiser
        x0 = self.model.codec.encode(batch.image.to(self.device))
        index = rng.integers(len(self.t))
        step = Transition(self.t[index], self.s[index])
        normal = partial(rng.normal, *x0.shape[1:])
        real = model.schedule.forward(x0, step.s, normal())
        x = step.noised(real, normal())
        eps, z = normal(), rng.normal(denoiser.config.latent or 1)
        cond = {condition.kind: condition.seen(batch.fields, x0) for condition in model.denoiser.conditions}

        def fake() -> Tensor:
            assert denoiser.latent is not None
            signals = denoiser.encode(cond, count=len(x)) + denoiser.latent(z)
            return step.drawn(denoiser(x, step.t, signals).x0, x, eps)

        def logits(after: Tensor, twice: bool) -> Tensor:
            time = torch.as_tensor(step.t.time).to(x)
            found: Tensor = self.discriminator(torch.cat([after, x], dim=1), time, cond.get("label"), denoiser.dtype, twice)
            return found

        return Game(real, fake, logits)

    def check(self) -> None:
        self.model.prepare(request(self.model.labels(None, PREVIEWS)))

    def preview(self) -> Tensor:
        return self.model.sample(count=PREVIEWS).images

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        return modes(self.model, batches())

    def compile(self) -> None:
        self.model.denoiser.network.compile()
        self.discriminator.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.model, "diffusion", self.task.model.to_json())}
