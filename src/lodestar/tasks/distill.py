"""One stage of progressive distillation: a student learns to replace two DDIM steps of its teacher by one.

Salimans and Ho 2022, "Progressive Distillation for Fast Sampling of Diffusion Models", algorithm 2. The student of N steps visits
the levels of the plan ``trailing:N``; its teacher also stops halfway between them. The student's target follows in closed form
from the end of the teacher's two steps (`two_steps`).
"""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import TIMESTEPS, Problem
from lodestar.core.estimate import Denoise
from lodestar.core.level import Level
from lodestar.core.plan import Trailing
from lodestar.core.schedule import Schedule
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.diffusion import Diffusion
from lodestar.guidance import Clamp, Context, compose
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.objectives.base import mean_flat
from lodestar.samplers import DDIM
from lodestar.samplers.algebra import combine, follow
from lodestar.tasks.base import Frozen, Phase, Task
from lodestar.tasks.denoise import DenoiseLearner, TrainDenoiser
from lodestar.tasks.rng import Rng

STABLE = ("x0", "v", "flow", "edm")
"""Predictions with x̂₀ defined at any noise. An error of ε̂ is multiplied by σ/α in x̂₀, without bound (section 4)."""


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

    @property
    def conditions(self) -> bool:
        return self.model.denoiser.classes is not None

    @property
    def captions(self) -> bool:
        return self.model.denoiser.text is not None

    def resolve(self, facts: DataFacts) -> Self:
        model, channels = self.model, self.model.denoiser.channels
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
        Trailing(count=2 * self.steps).indices(model.schedule.timesteps)  # raises if the chain is too short for the teacher
        model = model.replace(sampler=DDIM(), steps=f"trailing:{self.steps}")
        return self.replace(model=model, label_drop=self.label_drop if model.droppable else 0.0)

    def build(self, device: torch.device, dtype: torch.dtype) -> DistillLearner:
        return DistillLearner(self, device, dtype)


class DistillLearner(DenoiseLearner):
    """The learner of `Distill`."""

    def __init__(self, task: Distill, device: torch.device, dtype: torch.dtype) -> None:
        conditional = task.model.denoiser.classes is not None
        network = task.model.denoiser.network.without_ranges()
        student = task.model.replace(denoiser=task.model.denoiser.replace(network=network))
        super().__init__(
            TrainDenoiser(model=student, conditional=conditional, label_drop=task.label_drop, caption_drop=task.label_drop),
            device,
            dtype,
        )
        self.steps = [level.to(device) for level in stops(task.model.schedule, task.steps)]
        self.teacher = place(Diffusion(task.model).requires_grad_(False).eval(), device)
        self.teacher.denoiser.lower(dtype)
        self.frozen = {task.teacher: Frozen(self.teacher, "diffusion", task.digest)}

    def phases(self) -> list[Phase]:
        return [Phase("distill", list(self.module.parameters()), self.loss)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """Squared error of x̂₀ against the teacher's two steps, weighted by max(α²/σ², 1) (truncated SNR, section 4).

        Steps, noise and dropped labels are drawn from rng.
        """
        x0 = self.model.codec.encode(batch.image.to(self.device))
        index = rng.integers(len(self.steps[0]))
        t, halfway, s = (level[index] for level in self.steps)
        x = self.task.model.schedule.forward(x0, t, rng.normal(*x0.shape[1:]))
        cond, keep = self.condition(batch, x0, rng)
        with torch.no_grad():
            plain = self.teacher.denoiser.bind(cond, keep)
            # As in sampling: the teacher's x̂₀ is clamped to the range of pictures.
            target = two_steps(compose([Clamp()], Context(plain=plain)), x, t, halfway, s)
        estimate = self.model.denoiser(x, t, self.model.denoiser.encode(cond, keep))
        error = mean_flat((estimate.x0 - target) ** 2)
        snr = (t.alpha / t.sigma) ** 2
        assert isinstance(snr, Tensor), "levels are drawn for each sample"
        return Losses(error * snr.clamp(min=1).to(error), {"mse": error.detach()})

    def compile(self) -> None:
        super().compile()
        self.teacher.denoiser.network.compile()


def stops(schedule: Schedule, steps: int) -> tuple[Level, Level, Level]:
    """Levels at the begin, middle and end of each of a student's steps, which are the teacher's stops: three lists [steps]."""
    whole, halved = (Trailing(count=count).levels(schedule) for count in (steps, 2 * steps))

    def listed(levels: list[Level]) -> Level:
        values = torch.tensor([(level.time, level.alpha, level.sigma) for level in levels], dtype=torch.float64)
        return Level(*values.unbind(1))

    return listed(whole[:-1]), listed(halved[1::2]), listed(whole[1:])


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
