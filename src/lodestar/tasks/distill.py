"""One stage of distillation: a student learns to replace two DDIM steps of its teacher by one, or all steps by a jump.

Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", algorithm 2. The student of N steps visits
the levels of the plan ``trailing:N``; its teacher also stops halfway between them. The student's target follows in closed form
from the end of the teacher's two steps (`two_steps`).

A student that jumps is a consistency model (Song et al. 2023, algorithm 2): at any of the N levels its estimate is the clean
picture at the end of the teacher's path, and its target is its own estimate one step of the path later. The student begins as its
teacher, and targets are of the weights of the moment, without an average (Geng et al. 2024). One such student takes 1, 2 or 4
steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from lodestar.conditions import Cond
from lodestar.config import TIMESTEPS, Problem
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level, spread, stacked
from lodestar.core.plan import Trailing
from lodestar.core.schedule import Schedule
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.diffusion import Diffusion
from lodestar.guidance import Clamp, Context, compose
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.objectives.base import mean_flat
from lodestar.samplers import DDIM, Consistency
from lodestar.samplers.algebra import combine, follow
from lodestar.tasks.base import Frozen, Phase, Task
from lodestar.tasks.denoise import DenoiseLearner, TrainDenoiser
from lodestar.tasks.rng import Rng

STABLE = ("x0", "v", "flow", "edm")
"""Predictions with x̂₀ defined at any noise. An error of ε̂ is multiplied by σ/α in x̂₀, without bound (section 4)."""

HUBER = 0.00054
"""c of the pseudo-Huber distance of jumps, √(mean square + c²) − c (Song and Dhariwal 2024, section 3.3)."""


class Distill(Task):
    """A student of `steps` DDIM steps, with a teacher of twice as many."""

    kind: Literal["distill"] = "distill"
    teacher: str
    """Name of the teacher, for `lodestar.library.find`."""
    digest: str
    """SHA-256 of the teacher's file, as `lodestar info` shows it: a run is not resumed under another teacher."""
    model: DiffusionConfig
    """Configuration of the teacher, and of the student except for sampler and plan."""
    steps: int = Field(ge=1, le=TIMESTEPS)
    label_drop: float = Field(default=0.1, ge=0, le=1)
    """Probability of dropping a picture's class; 0 if the teacher was not trained so."""
    jump: bool = False
    """The student jumps to clean data: a consistency model over the levels of its `steps`."""
    scale: float = Field(default=1.0, ge=0, le=1e6)
    """Scale of the classifier-free guidance of the teacher, which the student learns (Meng et al. 2023); 1 is none."""
    low: float = Field(default=0.0, ge=0, le=1e9)
    high: float = Field(default=1e9, gt=0, le=1e9)
    """The guidance is of levels with low < σ/α ≤ high (Kynkäänniemi et al. 2024)."""

    @property
    def conditions(self) -> bool:
        return self.model.denoiser.classes is not None

    @property
    def captions(self) -> bool:
        return self.model.denoiser.text is not None

    def resolve(self, facts: DataFacts) -> Self:
        model, channels = self.model, self.model.denoiser.channels
        if model.denoiser.latent is not None:
            raise Problem(f"teacher {self.teacher} draws its pictures with a latent, and takes few steps already")
        if model.denoiser.prediction.kind not in STABLE:
            raise Problem(
                f"teacher {self.teacher} predicts {model.denoiser.prediction.kind!r}, which few steps cannot do with: "
                f'train one that predicts {", ".join(map(repr, STABLE))} (task.model.denoiser.prediction={{"kind":"v"}})'
            )
        if (facts.channels, facts.size) != (channels, model.size):
            raise Problem(
                f"teacher {self.teacher} makes pictures of {channels} channels and size {model.size}, "
                f"the data has {facts.channels} and {facts.size}: set data.channels and data.transforms.size"
            )
        classes = model.denoiser.classes
        if classes is not None and (
            facts.names is None or len(facts.names) != classes or (model.names or facts.names) != facts.names
        ):
            raise Problem(f"teacher {self.teacher} knows other classes ({model.names or classes}) than the data ({facts.names})")
        if self.scale != 1 and not (model.droppable and classes is not None):
            raise Problem(f"scale is {self.scale:g}, and teacher {self.teacher} was not trained without its classes as well")
        Trailing(count=2 * self.steps).indices(model.schedule.timesteps)  # raises if the chain is too short for the teacher
        model = model.replace(sampler=DDIM(), steps=f"trailing:{self.steps}")
        if self.jump:
            model = model.replace(sampler=Consistency(), steps="trailing:1")
        return self.replace(model=model, label_drop=self.label_drop if model.droppable else 0.0)

    def build(self, device: torch.device, dtype: torch.dtype) -> DistillLearner:
        return DistillLearner(self, device, dtype)


class DistillLearner(DenoiseLearner):
    """The learner of `Distill`."""

    def __init__(self, task: Distill, device: torch.device, dtype: torch.dtype) -> None:
        conditional = task.model.denoiser.classes is not None
        network = task.model.denoiser.network.without_ranges()
        student = task.model.replace(denoiser=task.model.denoiser.replace(network=network))
        drop = task.label_drop
        training = TrainDenoiser(model=student, conditional=conditional, label_drop=drop, caption_drop=drop)
        super().__init__(training, device, dtype)
        self.how = task
        self.steps = [level.to(device) for level in stops(task.model.schedule, task.steps)]
        self.teacher = place(Diffusion(task.model).requires_grad_(False).eval(), device)
        self.teacher.denoiser.lower(dtype)
        self.frozen = {task.teacher: Frozen(self.teacher, "diffusion", task.digest)}

    def phases(self) -> list[Phase]:
        return [Phase("distill", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """Squared error of x̂₀ against the teacher's two steps, weighted by max(α²/σ², 1) (truncated SNR, section 4).

        Of a jump, the pseudo-Huber distance from what the student says at the end of these two steps, weighted by the root.
        Steps, noise and dropped labels are drawn from rng.
        """
        x0 = self.model.codec.encode(batch.image.to(self.device))
        index = rng.integers(len(self.steps[0]))
        t, halfway, s = (level[index] for level in self.steps)
        x = self.task.model.schedule.forward(x0, t, rng.normal(*x0.shape[1:]))
        cond, keep = self.condition(batch, x0, rng)
        with torch.no_grad():
            # As in sampling: the teacher's x̂₀ is clamped to the range of pictures.
            target = two_steps(compose([Clamp()], Context(plain=self._guided(cond, keep))), x, t, halfway, s)
            if self.how.jump:
                target = self._landed(x, t, s, target, cond, keep)
        estimate = self.model.denoiser(x, t, self.model.denoiser.encode(cond, keep))
        error = mean_flat((estimate.x0 - target) ** 2)
        snr = (t.alpha / t.sigma) ** 2
        assert isinstance(snr, Tensor), "levels are drawn for each sample"
        weight = snr.clamp(min=1).to(error)
        if self.how.jump:
            return Losses(((error + HUBER**2).sqrt() - HUBER) * weight.sqrt(), {"mse": error.detach()})
        return Losses(error * weight, {"mse": error.detach()})

    def _guided(self, cond: Cond, keep: Mapping[str, Tensor]) -> Denoise:
        """The teacher with its guidance, at levels of each sample's own."""
        how, teacher = self.how, self.teacher.denoiser
        if how.scale == 1:
            return teacher.bind(cond, keep)
        count = len(next(iter(keep.values())))
        bound = teacher.bind(cond, keep, teacher.null({name: cond[name] for name in cond if name not in keep}, count))
        unconditional = bound.unconditional()

        def denoise(x: Tensor, level: Level) -> Estimate:
            conditional, null = bound(x, level), unconditional(x, level)
            ratio = level.ratio
            assert isinstance(ratio, Tensor), "levels are drawn for each sample"
            weight = spread((how.scale - 1) * ((how.low < ratio) & (ratio <= how.high)), x)
            return replace(conditional, x0=conditional.x0 + weight * (conditional.x0 - null.x0))

        return denoise

    def _landed(self, x: Tensor, t: Level, s: Level, target: Tensor, cond: Cond, keep: Mapping[str, Tensor]) -> Tensor:
        """The clean picture that the student says at s, at the end of the teacher's two steps from x; at clean data, that end."""
        of_x0, of_x = follow(t, s)
        there = self.model.denoiser(combine((of_x0, target), (of_x, x)), s, self.model.denoiser.encode(cond, keep)).x0
        clean = spread(s.sigma, x) == 0
        return torch.where(torch.as_tensor(clean), target, there.clamp(-1, 1))

    def compile(self) -> None:
        super().compile()
        self.teacher.denoiser.network.compile()


def stops(schedule: Schedule, steps: int) -> tuple[Level, Level, Level]:
    """Levels at the begin, middle and end of each of a student's steps, which are the teacher's stops: three lists [steps]."""
    whole, halved = (Trailing(count=count).levels(schedule) for count in (steps, 2 * steps))
    return stacked(whole[:-1]), stacked(halved[1::2]), stacked(whole[1:])


def two_steps(teacher: Denoise, x: Tensor, t: Level, halfway: Level, s: Level) -> Tensor:
    """The x̂₀ for which one DDIM step t → s ends where the teacher's two, t → halfway → s, end (equation 7); x is [B, ...].

    A weighted mean of the two estimates, with weights that add up to 1: no difference of nearly equal values.
    """
    first = teacher(x, t).x0
    of_first, of_x = follow(t, halfway)
    second = teacher(combine((of_first, first), (of_x, x)), halfway).x0
    of_second, of_halfway = follow(halfway, s)
    whole, _ = follow(t, s)
    return combine((of_halfway * of_first / whole, first), (of_second / whole, second))
