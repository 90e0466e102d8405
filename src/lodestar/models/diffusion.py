"""A diffusion model of pictures: denoiser, schedule and codec, and the stream of frames that sampling it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from lodestar.codecs import pixels
from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import Previous
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.core.transition import Transition
from lodestar.denoiser import Bound, DenoiserConfig
from lodestar.guidance import AnyGuidance, Classifier, Clip, Context, Threshold, compose
from lodestar.models.classifier import PictureClassifier
from lodestar.models.labels import class_number, listed
from lodestar.samplers import AnySampler, DPMpp


class DiffusionConfig(Config):
    """A diffusion model."""

    kind: Literal["diffusion"] = "diffusion"
    denoiser: DenoiserConfig = DenoiserConfig()
    schedule: AnySchedule = Linear()
    size: tuple[int, int] = (32, 32)
    """Height and width of its pictures."""
    names: tuple[str, ...] | None = None
    """Names of its classes, perhaps with synonyms (`lodestar.models.labels`)."""
    droppable: bool = False
    """It was trained without its classes too, so that it is an unconditional model as well."""
    sampler: AnySampler = DPMpp()
    """What it is sampled with where nothing else is asked for."""
    plan: str = "20"
    """Likewise: its sampling plan, in text."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classes, prediction = self.denoiser.classes, self.denoiser.prediction.kind
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


class Request(Config):
    """What to sample. The command line, Python and a manifest all make one of these."""

    labels: tuple[int | None, ...] = Field(min_length=1)
    """The class of each picture; None is none (unconditional)."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """The seed of each picture; it depends on nothing else that is sampled with it."""
    plan: str | None = None
    """Sampling plan in text (`lodestar.core.plan`); None is the model's own."""
    sampler: AnySampler | None = None
    guidance: tuple[AnyGuidance, ...] = ()
    """In the order of application."""
    clip: bool = True
    """Clamp x̂₀ to the range of pictures, before a classifier's gradient and after, unless the guidance clips or thresholds."""

    @field_validator("plan")
    @classmethod
    def _readable(cls, plan: str | None) -> str | None:
        if plan is not None:
            parse_plan(plan)
        return plan

    def only(self, index: int) -> Self:
        """The request for one of its pictures alone."""
        return self.replace(labels=(self.labels[index],), seeds=(self.seeds[index],))


@dataclass(frozen=True)
class Frame:
    """Some of the requested pictures, as believed after one step; after the last step, the pictures themselves."""

    first: int
    """Number of the first of these pictures in the request."""
    step: int
    """Steps taken."""
    steps: int
    """Steps in all."""
    x: Tensor = field(repr=False)
    """What they are, in the range [−1, 1]: float32 [B, C, H, W]."""

    @property
    def images(self) -> Tensor:
        """uint8 [B, C, H, W]."""
        return pixels.decode(self.x).cpu()

    @property
    def final(self) -> bool:
        """Whether these are the answer."""
        return self.step == self.steps


@dataclass(frozen=True)
class Samples:
    """Pictures, the request that they answer, and who answered it. `lodestar.save` writes them to a folder."""

    images: Tensor = field(repr=False)
    """uint8 [N, C, H, W]."""
    request: Request
    model: Diffusion = field(repr=False)
    classifier: PictureClassifier | None = field(default=None, repr=False)


class Diffusion(nn.Module):
    """A diffusion model."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = config.denoiser.build()
        self.guide: Callable[[], PictureClassifier] | None = None
        """Loads the noise-aware classifier that belongs to this model, if one does."""
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
        batch_size: int = 32,
        classifier: PictureClassifier | None = None,
    ) -> Samples:
        """Sample pictures.

        label: a class by name or number, or one for each picture; None takes the classes in turn. count: how many pictures
        (default: as many as labels). Picture k has the seed `seed + k` and is the same whatever the batch size. steps: a plan
        (`lodestar.core.plan`). classifier: the noise-aware classifier that "classifier" guidance climbs, where the model has
        none of its own. Raises Problem.
        """
        guides = tuple(guidance) if isinstance(guidance, Sequence) else (guidance,)
        if classifier is None and self.guide is not None and any(isinstance(each, Classifier) for each in guides):
            classifier = self.guide()
        labels = self.labels([label] if isinstance(label, str | int) else label, count, classifier)
        request = Request(
            labels=labels,
            seeds=tuple(range(seed, seed + len(labels))),
            plan=None if steps is None else str(steps),
            sampler=sampler,
            guidance=guides,
            clip=clip,
        )
        frames = self.stream(request, batch_size=batch_size, classifier=classifier)
        return Samples(torch.cat([frame.images for frame in frames if frame.final]), request, self, classifier)

    def labels(
        self, asked: Sequence[str | int | None] | None, count: int | None, classifier: PictureClassifier | None = None
    ) -> tuple[int | None, ...]:
        """A class for each of `count` pictures: those asked for, in turn; all classes in turn where none is. Raises Problem.

        The classes are the model's, or those of the classifier that guides a model which knows none.
        """
        if count is not None and count < 1:
            raise Problem(f"count is {count}: at least 1")
        names, classes = self.classes(classifier)
        if asked is None:
            numbers: list[int | None] = [None] if classes is None else list(range(classes))
        else:
            numbers = [self._label(each, names, classes) for each in asked]
        return tuple(numbers[k % len(numbers)] for k in range(len(numbers) if count is None else count))

    def classes(self, classifier: PictureClassifier | None = None) -> tuple[tuple[str, ...], int | None]:
        """The names of the classes that may be asked for (empty if they have none), and how many there are (None for none)."""
        if self.config.denoiser.classes is None and classifier is not None:
            return classifier.config.names or (), classifier.config.network.classes
        return self.config.names or (), self.config.denoiser.classes

    def _label(self, asked: str | int | None, names: tuple[str, ...], classes: int | None) -> int | None:
        """The number of a class (`class_number`); "none" and None are none. Raises Problem."""
        if asked is None or asked == "none":
            if self.config.denoiser.classes is not None and not self.config.droppable:
                raise Problem("label none: this model was never trained without its classes")
            return None
        if classes is None:
            raise Problem(f"label {asked!r}: this model knows no classes")
        return class_number(asked, names, classes)

    def check(self, request: Request, classifier: PictureClassifier | None = None) -> None:
        """Raise Problem if a request cannot be answered, before any work is done."""
        self.steps(request)
        self.guided(self.complete(request), request.labels[:1], classifier)

    @torch.inference_mode()
    def stream(
        self,
        request: Request,
        *,
        batch_size: int = 32,
        classifier: PictureClassifier | None = None,
        low_res: Tensor | None = None,
    ) -> Iterator[Frame]:
        """Sample a request batch by batch, a frame for every step. Raises Problem before the first step if it cannot be done.

        low_res: the pictures that an upsampler enlarges, uint8 [N, C, h, w], one for each of the request.
        """
        if batch_size < 1:
            raise Problem(f"batch size is {batch_size}: at least 1")
        sampler, steps, guidance = request.sampler or self.config.sampler, self.steps(request), self.complete(request)
        self.eval()
        for first in range(0, len(request.labels), batch_size):
            rows = slice(first, first + batch_size)
            denoise = self.guided(guidance, request.labels[rows], classifier, None if low_res is None else low_res[rows])
            noise = SeededNoise(request.seeds[rows])
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

    def guided(
        self,
        guidance: Sequence[AnyGuidance],
        labels: Sequence[int | None],
        classifier: PictureClassifier | None,
        low_res: Tensor | None = None,
    ) -> Denoise:
        """The `Denoise` of one batch; low_res: the pictures uint8 [B, C, h, w] that an upsampler enlarges."""
        return compose(guidance, self._context(labels, classifier, low_res))

    def between(
        self,
        guidance: Sequence[AnyGuidance],
        ends: tuple[int | None, int | None],
        weights: Sequence[float],
        classifier: PictureClassifier | None,
    ) -> Denoise:
        """The `Denoise` of a batch whose samples are somewhere between two labels: weight 0 is the first, 1 the second.

        The labels' embeddings are interpolated, and a classifier's log-probabilities of them.
        """
        first, second = (self._context([end] * len(weights), classifier) for end in ends)
        assert isinstance(first.plain, Bound) and isinstance(second.plain, Bound)
        with torch.inference_mode(False):
            weight = torch.tensor(weights, device=self.device)
        bound, one, other = first.plain.toward(second.plain, weight), first.critic, second.critic

        def critic(x: Tensor, level: Level) -> Tensor:
            assert one is not None and other is not None
            return (1 - weight) * one(x, level) + weight * other(x, level)

        context = replace(first, plain=bound, pair=first.pair and bound.pair, critic=one and critic)
        return compose(guidance, context)

    def _context(
        self, labels: Sequence[int | None], classifier: PictureClassifier | None, low_res: Tensor | None = None
    ) -> Context:
        """What guidance may need, bound to the labels of one batch. Raises Problem for a classifier that cannot guide."""
        small = self.config.denoiser.low_res
        if small is not None and low_res is None:
            raise Problem(
                f"this model enlarges pictures of {small[0]}×{small[1]}, and is given none: lodestar upsample gives it some"
            )
        # Ordinary tensors: the classifier's gradient is taken inside of inference mode.
        with torch.inference_mode(False):
            label = torch.tensor([label or 0 for label in labels], device=self.device)
            keep = torch.tensor([label is not None for label in labels], device=self.device)
        conditional = self.config.denoiser.classes is not None
        picture = {} if low_res is None else {"low_res": pixels.encode(low_res.to(self.device))}
        bound = self.denoiser.bind({**picture, "label": label} if conditional else picture, {"label": keep})
        critic = None
        if classifier is not None:
            self._check_guide(classifier)
            critic = lambda x, level: classifier.logp(x, level, label) * keep  # noqa: E731
        free = conditional and self.config.droppable
        return Context(
            plain=bound, null=self.denoiser.bind(picture) if free else None, pair=bound.pair if free else None, critic=critic
        )

    def _check_guide(self, classifier: PictureClassifier) -> None:
        """Raise Problem unless this classifier sees what this model makes."""
        guide, model = classifier.config, self.config
        channels = model.denoiser.channels
        if not guide.noised:
            raise Problem("this classifier was trained on clean pictures alone: guidance needs one that knows noised ones")
        if model.denoiser.classes is not None and guide.names != model.names:
            known, wanted = listed(guide.names or ()) or "no names", listed(model.names or ()) or "no names"
            raise Problem(f"this classifier knows other classes ({known}) than the model ({wanted})")
        if guide.schedule != model.schedule:
            raise Problem(
                f"this classifier knows another noise schedule ({guide.schedule.kind}) than the model ({model.schedule.kind})"
            )
        if (guide.network.in_channels, guide.size) != (channels, model.size):
            raise Problem(
                f"this classifier sees pictures of {guide.network.in_channels} channels and size {guide.size}, "
                f"the model makes {channels} and {model.size}"
            )

    def complete(self, request: Request) -> list[AnyGuidance]:
        """The requested guidance with the clipping that pictures want put in its place."""
        guidance = list(request.guidance)
        if request.clip and not any(isinstance(each, Clip | Threshold) for each in guidance):
            place = next((k for k, each in enumerate(guidance) if isinstance(each, Classifier)), len(guidance))
            guidance.insert(place, Clip(folded=True))
        return guidance
