"""A diffusion model of pictures: denoiser, schedule and codec, and the stream of frames that sampling it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, field_validator, model_validator
from torch import Tensor, nn

from lodestar.codecs import pixels
from lodestar.conditions import Composed, Label, sign_table, signs
from lodestar.config import Config, Problem
from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.core.noise import SeededNoise
from lodestar.core.plan import parse_plan
from lodestar.core.prediction import Previous
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.core.transition import Transition
from lodestar.denoiser import Bound, DenoiserConfig
from lodestar.guidance import (
    AnyGuidance,
    CFGpp,
    Classifier,
    Clip,
    Composition,
    Context,
    Interval,
    Threshold,
    compose,
)
from lodestar.models.agreement import check_guide, check_weak, note_sampler
from lodestar.models.classifier import PLAIN, PictureClassifier
from lodestar.models.labels import read_label, spell
from lodestar.models.rejection import candidates, surest
from lodestar.samplers import AnySampler, DPMpp

LogP = Callable[[Tensor, Level], Tensor]
"""(x [B, C, H, W], level) → a log-probability [B]."""


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

    labels: tuple[Label, ...] = Field(min_length=1)
    """The class of each picture, or several composed; None is none (unconditional)."""
    seeds: tuple[int, ...] = Field(min_length=1)
    """The seed of each picture; it depends on nothing else that is sampled with it."""
    plan: str | None = None
    """Sampling plan in text (`lodestar.core.plan`); None is the model's own."""
    sampler: AnySampler | None = None
    guidance: tuple[AnyGuidance, ...] = ()
    """In the order of application."""
    clip: bool = True
    """Clamp x̂₀ to the range of pictures, before a classifier's gradient and after, unless the guidance clips or thresholds."""
    temperature: float = Field(default=1.0, gt=0)
    """Standard deviation of all noise that is drawn, at the start and on the way; below 1 is likelier and less diverse."""

    @field_validator("plan")
    @classmethod
    def _readable(cls, plan: str | None) -> str | None:
        if plan is not None:
            parse_plan(plan)
        return plan

    each: ClassVar[tuple[str, ...]] = ("labels", "seeds")
    """The fields that have an entry for each picture."""

    def only(self, *indices: int) -> Self:
        """The request for some of its pictures alone."""
        values = {name: getattr(self, name) for name in self.each}
        return self.replace(**{name: [value[k] for k in indices] if value else value for name, value in values.items()})


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

    @property
    def done(self) -> float:
        """How much of the request is done, in pictures: those before these, and of these the part of their steps."""
        return self.first + len(self.x) * self.step / self.steps


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
        the batch size. steps: a plan (`lodestar.core.plan`). temperature: see `Request`. classifier: what "classifier" guidance
        climbs, where the model has none of its own. weak: what "autoguidance" leads away from.
        best_of, judge: of so many candidates for each picture the one is kept that the classifier finds the surest
        (`lodestar.models.rejection`); candidate j of picture k has the seed `seed + k * best_of + j`. Raises Problem.
        """
        guides, classifier = self.guides(guidance, classifier)
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
        self, guidance: AnyGuidance | Sequence[AnyGuidance], classifier: PictureClassifier | None
    ) -> tuple[tuple[AnyGuidance, ...], PictureClassifier | None]:
        """All the guidance, and the classifier for it: the one given, else the model's own where one is asked for."""
        listed = tuple(guidance) if isinstance(guidance, Sequence) else (guidance,)
        if classifier is None and self.guide is not None and any(isinstance(each, Classifier) for each in listed):
            classifier = self.guide()
        return listed, classifier

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
        sampler, steps, guidance = request.sampler or self.config.sampler, self.steps(request), self.complete(request)
        labels = tuple(dict.fromkeys(request.labels))
        for label in labels:
            self._check_label(label, classifier)
        self.guided(guidance, labels, classifier, None if low_res is None else low_res[: len(labels)], weak)
        check_intervals(guidance, steps, f"those of plan {request.plan or self.config.plan!r}")
        self._rehearse(sampler, steps, guidance)
        note_sampler(self.config, sampler)

    def _rehearse(self, sampler: AnySampler, steps: Sequence[Transition], guidance: Sequence[AnyGuidance]) -> None:
        """The first step with a single number for a picture, so that what a sampler refuses it refuses before any work."""
        learned = torch.zeros(1, 1) if self.config.denoiser.variance != "fixed" else None
        renoises = any(isinstance(each, CFGpp) for each in guidance)

        def denoise(x: Tensor, level: Level) -> Estimate:
            return Estimate(x, level, x, frac=learned, renoise=x if renoises else None)

        next(iter(sampler(denoise, torch.zeros(1, 1), steps, torch.zeros_like)))

    def _check_label(self, label: Label, classifier: PictureClassifier | None) -> None:
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
        """Sample a request batch by batch, a frame for every step. Raises Problem at once if it cannot be done, see `check`."""
        if batch_size < 1:
            raise Problem(f"batch size is {batch_size}: at least 1")
        self.check(request, classifier, weak)
        return self._frames(request, batch_size, classifier, weak)

    @torch.inference_mode()
    def _frames(
        self, request: Request, batch_size: int, classifier: PictureClassifier | None, weak: Diffusion | None
    ) -> Iterator[Frame]:
        """`stream`, of a request that can be answered."""
        sampler, steps, guidance = request.sampler or self.config.sampler, self.steps(request), self.complete(request)
        self.eval()
        if weak is not None:
            weak.eval()
        for first in range(0, len(request.labels), batch_size):
            rows = slice(first, first + batch_size)
            denoise = self.guided(guidance, request.labels[rows], classifier, weak=weak)
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

    def guided(
        self,
        guidance: Sequence[AnyGuidance],
        labels: Sequence[Label],
        classifier: PictureClassifier | None,
        low_res: Tensor | None = None,
        weak: Diffusion | None = None,
    ) -> Denoise:
        """The `Denoise` of one batch, for one sampling: some guidance remembers what it said on the way.

        low_res: the pictures uint8 [B, C, h, w] that an upsampler enlarges.
        """
        return compose(guidance, self._context(guidance, labels, classifier, low_res, weak))

    def between(
        self,
        guidance: Sequence[AnyGuidance],
        ends: tuple[Label, Label],
        weights: Sequence[float],
        classifier: PictureClassifier | None,
        weak: Diffusion | None = None,
    ) -> Denoise:
        """The `Denoise` of a batch whose samples are somewhere between two labels: weight 0 is the first, 1 the second.

        The labels' embeddings are interpolated, and a classifier's log-probabilities of them.
        """
        assert not any(isinstance(end, Composed) for end in ends), "a composed label has no one embedding"
        first, second = (self._context(guidance, [end] * len(weights), classifier, weak=weak) for end in ends)
        assert isinstance(first.plain, Bound) and isinstance(second.plain, Bound)
        with torch.inference_mode(False):
            weight = torch.tensor(weights, device=self.device)

        def mixed(one: LogP | None, other: LogP | None) -> LogP | None:
            if one is None or other is None:
                return None
            return lambda x, level: (1 - weight) * one(x, level) + weight * other(x, level)

        bound, worse = first.plain.toward(second.plain, weight), None
        if first.weak is not None:
            assert isinstance(first.weak, Bound) and isinstance(second.weak, Bound)
            worse = first.weak.toward(second.weak, weight)
        context = replace(
            first,
            plain=bound,
            pair=first.pair and bound.pair,
            critic=mixed(first.critic, second.critic),
            clean=mixed(first.clean, second.clean),
            weak=worse,
            perturbed=bound.perturbed(),
            attended=bound.attended,
        )
        return compose(guidance, context)

    def _context(
        self,
        guidance: Sequence[AnyGuidance],
        labels: Sequence[Label],
        classifier: PictureClassifier | None,
        low_res: Tensor | None = None,
        weak: Diffusion | None = None,
    ) -> Context:
        """What this guidance may need, bound to the labels of one batch. Raises Problem for models that cannot guide."""
        small = self.config.denoiser.low_res
        if small is not None and low_res is None:
            raise Problem(
                f"this model enlarges pictures of {small[0]}×{small[1]}, and is given none: lodestar upsample gives it some"
            )
        # Ordinary tensors: gradients of a classifier, and through the model, are taken inside of inference mode.
        with torch.inference_mode(False), torch.no_grad():
            picture = {} if low_res is None else {"low_res": pixels.encode(low_res.to(self.device))}
            bound = self._bound(labels, picture)
            critic, clean = self._critics(guidance, labels, classifier)
            worse = None
            if weak is not None:
                check_weak(self.config, weak.config)
                for label in dict.fromkeys(labels):
                    weak._check_label(label, classifier)
                worse = weak._bound(labels, picture)
        free = self.config.denoiser.classes is not None and self.config.droppable
        return Context(
            plain=bound,
            null=self.denoiser.bind(picture) if free else None,
            pair=bound.pair if free else None,
            critic=critic,
            clean=clean,
            weak=worse,
            perturbed=bound.perturbed(),
            attended=bound.attended,
        )

    def _bound(self, labels: Sequence[Label], picture: Mapping[str, Tensor]) -> Bound:
        """The denoiser under the labels of one batch, and the pictures that it enlarges."""
        if self.config.denoiser.classes is None:
            return self.denoiser.bind(picture)
        if not any(isinstance(label, Composed) for label in labels):
            numbers = torch.tensor([label or 0 for label in labels], device=self.device)
            keep = torch.tensor([label is not None for label in labels], device=self.device)
            return self.denoiser.bind({**picture, "label": numbers}, {"label": keep})
        terms = [(row, *term) for row, label in enumerate(labels) for term in signs(label).items()]
        rows, numbers, sign = (torch.tensor(values, device=self.device) for values in zip(*terms, strict=True))
        return self.denoiser.bind({**picture, "label": numbers}, composition=Composition(rows, sign))

    def _critics(
        self, guidance: Sequence[AnyGuidance], labels: Sequence[Label], classifier: PictureClassifier | None
    ) -> tuple[LogP | None, LogP | None]:
        """log p(labels | x) of noisy and of clean pictures; the former None where the classifier knows no noise."""
        if classifier is None:
            return None, None
        noisy = any(isinstance(each, Classifier) and each.sees == "noisy" for each in guidance)
        check_guide(self.config, classifier.config, noisy)
        table = sign_table(labels, classifier.config.network.classes).to(self.device)

        def critic(x: Tensor, level: Level) -> Tensor:
            return classifier.logp(x, level, table)

        return critic if noisy else None, lambda x, level: classifier.logp(x, PLAIN, table)

    def complete(self, request: Request) -> list[AnyGuidance]:
        """The requested guidance with the clipping that pictures want put in its place."""
        guidance = list(request.guidance)
        if request.clip and not any(isinstance(each, Clip | Threshold) for each in guidance):
            place = next((k for k, each in enumerate(guidance) if isinstance(each, Classifier)), len(guidance))
            guidance.insert(place, Clip(folded=True))
        return guidance


def check_intervals(guidance: Sequence[AnyGuidance], steps: Sequence[Transition], what: str) -> None:
    """Raise Problem where an interval of guidance has none of the steps inside; what: names the steps."""
    for each in guidance:
        if isinstance(each, Interval) and not any(each.holds(step.t) for step in steps):
            ratios = sorted(step.t.ratio for step in steps)
            raise Problem(
                f"guidance interval:{each.low:g},{each.high:g} has no step inside: {what} have σ/α from {ratios[0]:.3g} "
                f"to {ratios[-1]:.3g}"
            )
