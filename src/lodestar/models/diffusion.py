"""A diffusion model of pictures: denoiser, schedule and codec, and the stream of frames that sampling it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.conditions import Composed, Label, signs
from lodestar.config import CLASSES, Config, Problem, Side
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import Previous
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.core.transition import Transition
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import AnyGuidance, Autoguidance, CFGpp, Classifier, Context, compose
from lodestar.models.agreement import note_sampler
from lodestar.models.classifier import PictureClassifier
from lodestar.models.guided import check_intervals, guided
from lodestar.models.labels import read_label, spell
from lodestar.models.rejection import candidates, surest
from lodestar.models.request import Frame, Request
from lodestar.samplers import AnySampler, DPMpp


class DiffusionConfig(Config):
    """A diffusion model."""

    kind: Literal["diffusion"] = "diffusion"
    denoiser: DenoiserConfig = DenoiserConfig()
    schedule: AnySchedule = Linear()
    size: tuple[Side, Side] = (32, 32)
    """Height and width of its pictures."""
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of its classes, perhaps with synonyms (`lodestar.models.labels`)."""
    droppable: bool = False
    """It was trained without its classes too, so that it is an unconditional model as well."""
    sampler: AnySampler = DPMpp()
    """What it is sampled with where nothing else is asked for."""
    plan: str = "trailing:20"
    """Likewise: its sampling plan, in text."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classes, prediction = self.denoiser.classes, self.denoiser.prediction.kind
        if any(side % self.denoiser.network.divisor for side in self.size):
            raise Problem(f"size is {self.size[0]}×{self.size[1]}: both must be multiples of {self.denoiser.network.divisor}")
        if self.names is not None and len(self.names) != classes:
            raise Problem(f"{len(self.names)} names are given for {classes} classes")
        if self.schedule.table[self.schedule.timesteps].alpha == 0 and prediction in ("epsilon", "score", "edm", "consistency"):
            raise Problem(
                f"prediction {prediction!r} says nothing of the picture at pure noise, where this schedule ends: try 'v' or 'x0'"
            )
        if isinstance(self.denoiser.prediction, Previous) and self.denoiser.prediction.schedule != self.schedule:
            raise Problem("prediction 'previous' is a mean of this model's chain: its schedule and the model's must be the same")
        return self

    def build(self) -> Diffusion:
        return Diffusion(self)


@dataclass(frozen=True)
class Samples:
    """Pictures, the request that they answer, and who answered it. `lodestar.save` writes them to a folder."""

    images: Tensor = field(repr=False)
    """uint8 [N, C, H, W]."""
    request: Request
    model: Diffusion = field(repr=False)
    classifier: PictureClassifier | None = field(default=None, repr=False)
    weak: Diffusion | None = field(default=None, repr=False)


class Diffusion(nn.Module):
    """A diffusion model."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = config.denoiser.build()
        self.guide: Callable[[], PictureClassifier] | None = None
        """Loads the noise-aware classifier that belongs to this model, if one does."""
        self.weaker: Callable[[], Diffusion] | None = None
        """Loads the weaker model that autoguidance leads this one away from, if one belongs to it."""
        self.name = ""
        """What it was loaded by; empty if it was built in code."""
        self.digest = ""
        """SHA-256 of the file that it was loaded from, as `lodestar info` shows it; empty if it was built in code."""

    @property
    def device(self) -> torch.device:
        """Where its weights are."""
        return next(self.parameters()).device

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of its pictures."""
        return (self.config.denoiser.channels, *self.config.size)

    def sample(
        self,
        label: str | int | Sequence[str | int | None] | None = None,
        count: int | None = None,
        *,
        seed: int = 0,
        steps: str | int | None = None,
        sampler: AnySampler | None = None,
        guidance: AnyGuidance | Sequence[AnyGuidance] = (),
        clip: bool = True,
        temperature: float = 1.0,
        batch_size: int = 32,
        classifier: PictureClassifier | None = None,
        weak: Diffusion | None = None,
        best_of: int = 1,
        judge: PictureClassifier | None = None,
    ) -> Samples:
        """Sample pictures.

        label: a class by name or number, several ("dog+ship", "not cat"), or one for each picture; None takes the classes in
        turn. count: how many pictures (default: as many as labels). Picture k has the seed `seed + k` and is the same whatever
        the batch size. steps: a plan (`lodestar.core.plan`). temperature: see `Request`. classifier, weak: what
        "classifier" guidance climbs and "autoguidance" leads away from; default the model's own, where it has them.
        best_of, judge: of so many candidates for each picture the one is kept that the classifier finds the surest
        (`lodestar.models.rejection`); candidate j of picture k has the seed `seed + k * best_of + j`. Raises Problem.
        """
        guides, classifier, weak = self.guides(guidance, classifier, weak)
        labels = self.labels([label] if isinstance(label, str | int) else label, count, classifier)
        request = Request(
            labels=candidates(labels, best_of),
            seeds=tuple(range(seed, seed + len(labels) * best_of)),
            plan=None if steps is None else str(steps),
            sampler=sampler,
            guidance=guides,
            clip=clip,
            temperature=temperature,
        )
        frames = self.stream(request, batch_size=batch_size, classifier=classifier, weak=weak)
        if best_of > 1:
            if judge is None and self.guide is not None:
                judge = self.guide()
            images, request = surest(frames, request, best_of, self, judge)
        else:
            images = torch.cat([frame.images for frame in frames if frame.final])
        return Samples(images, request, self, classifier, weak)

    def guides(
        self, guidance: AnyGuidance | Sequence[AnyGuidance], classifier: PictureClassifier | None, weak: Diffusion | None
    ) -> tuple[tuple[AnyGuidance, ...], PictureClassifier | None, Diffusion | None]:
        """All the guidance, the classifier and the weaker model for it: those given, else the model's own where needed."""
        listed = tuple(guidance) if isinstance(guidance, Sequence) else (guidance,)
        if classifier is None and self.guide is not None and any(isinstance(each, Classifier) for each in listed):
            classifier = self.guide()
        if weak is None and self.weaker is not None and any(isinstance(each, Autoguidance) for each in listed):
            weak = self.weaker()
        return listed, classifier, weak

    def labels(
        self, asked: Sequence[str | int | None] | None, count: int | None, classifier: PictureClassifier | None = None
    ) -> tuple[Label, ...]:
        """A label for each of `count` pictures: those asked for, in turn; all classes in turn where none is. Raises Problem.

        The classes are the model's, or those of the classifier that guides a model which knows none.
        """
        if count is not None and count < 1:
            raise Problem(f"count is {count}: at least 1")
        names, classes = self.classes(classifier)
        if asked is None:
            numbers: list[Label] = [None] if classes is None else list(range(classes))
        else:
            numbers = [self._label(each, names, classes) for each in asked]
        return tuple(numbers[k % len(numbers)] for k in range(len(numbers) if count is None else count))

    def classes(self, classifier: PictureClassifier | None = None) -> tuple[tuple[str, ...], int | None]:
        """The names of the classes that may be asked for (empty if they have none), and how many there are (None for none)."""
        if self.config.denoiser.classes is None and classifier is not None:
            return classifier.config.names or (), classifier.config.network.classes
        return self.config.names or (), self.config.denoiser.classes

    def _label(self, asked: str | int | None, names: tuple[str, ...], classes: int | None) -> Label:
        """A class, or several, by name or number; "none" and None are none. Raises Problem."""
        if asked is None or asked == "none":
            if self.config.denoiser.classes is not None and not self.config.droppable:
                raise Problem("label none: this model was never trained without its classes")
            return None
        if classes is None:
            raise Problem(f"label {asked!r}: this model knows no classes")
        return read_label(asked, names, classes)

    def check(
        self,
        request: Request,
        classifier: PictureClassifier | None = None,
        weak: Diffusion | None = None,
        low_res: Tensor | None = None,
    ) -> None:
        """Raise Problem if a request cannot be answered, before any work is done.

        low_res: the pictures uint8 [N, C, h, w] that an upsampler enlarges, one for each of the request.
        """
        sampler, steps, guidance = request.sampler or self.config.sampler, self.steps(request), request.complete_guidance()
        labels = tuple(dict.fromkeys(request.labels))
        for label in labels:
            self.check_label(label, classifier)
        guided(self, guidance, labels, classifier, None if low_res is None else low_res[: len(labels)], weak)
        check_intervals(guidance, sampler, steps, f"those of plan {request.plan or self.config.plan!r}")
        self._rehearse(sampler, steps, guidance)
        note_sampler(self.config, sampler)

    def _rehearse(self, sampler: AnySampler, steps: Sequence[Transition], guidance: Sequence[AnyGuidance]) -> None:
        """The first step with a single number for a picture, so that what a sampler refuses it refuses before any work."""
        learned = torch.zeros(1, 1) if self.config.denoiser.variance != "fixed" else None

        def plain(x: Tensor, level: Level) -> Estimate:
            return Estimate(x, level, x, frac=learned)

        context = Context(plain, pair=lambda x, level: (plain(x, level), plain(x, level)))
        denoise = compose([each for each in guidance if isinstance(each, CFGpp)], context)
        next(iter(sampler(denoise, torch.zeros(1, 1), steps, torch.zeros_like)))

    def check_label(self, label: Label, classifier: PictureClassifier | None) -> None:
        """Raise Problem unless this model, or the classifier that guides it, can be asked for a label."""
        names, classes = self.classes(classifier)
        for number in signs(label):
            if classes is None or not 0 <= number < classes:
                known = "no classes" if classes is None else f"classes 0 to {classes - 1}"
                raise Problem(f"label {number}: this model knows {known}")
        if isinstance(label, Composed) and self.config.denoiser.classes is not None and not self.config.droppable:
            raise Problem(
                f"label {spell(label, names)!r}: composed labels need a model that was also trained without its classes"
            )

    def stream(
        self,
        request: Request,
        *,
        batch_size: int = 32,
        classifier: PictureClassifier | None = None,
        weak: Diffusion | None = None,
    ) -> Iterator[Frame]:
        """Sample a request batch by batch, a frame for every step. Raises Problem at once if it cannot be done, see `check`.

        A sampler that chooses its own steps gets one picture at a time, because none may depend on those sampled with it.
        """
        if batch_size < 1:
            raise Problem(f"batch size is {batch_size}: at least 1")
        self.check(request, classifier, weak)
        return self._frames(request, batch_size, classifier, weak)

    @torch.inference_mode()
    def _frames(
        self, request: Request, batch_size: int, classifier: PictureClassifier | None, weak: Diffusion | None
    ) -> Iterator[Frame]:
        """`stream`, of a request that can be answered."""
        sampler, steps, guidance = request.sampler or self.config.sampler, self.steps(request), request.complete_guidance()
        self.eval()
        if weak is not None:
            weak.eval()
        size = 1 if sampler.adaptive else batch_size
        for first in range(0, len(request.labels), size):
            rows = slice(first, first + size)
            denoise = guided(self, guidance, request.labels[rows], classifier, weak=weak)
            noise = SeededNoise(request.seeds[rows], request.temperature)
            # The noisiest level of a chain is nearly but not exactly pure noise; published samplers begin at unit noise too.
            x = noise.start(self.shape, self.device) * self.config.schedule.start_sigma
            for state in sampler(denoise, x, steps, noise):
                done = state.index + 1
                yield Frame(first, done, len(steps), state.x if done == len(steps) else state.estimate.x0)

    def steps(self, request: Request) -> list[Transition]:
        """The steps of a request. Raises Problem where they begin at a level that is hardly noisy, where noise is no picture."""
        plan = request.plan or self.config.plan
        steps = self.config.schedule.steps(parse_plan(plan))
        start = steps[0].t
        if start.ratio < 1:
            raise Problem(
                f"steps {plan!r} begin where pictures are hardly noisy (σ/α = {start.ratio:.2g}): try trailing:{len(steps)}"
            )
        return steps
