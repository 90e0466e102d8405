"""Cascades: a generator, and upsamplers that enlarge its pictures one after the other (Ho et al. 2022)."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any, Self, Unpack

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask, Label
from lodestar.config import Problem, checked, shown
from lodestar.core.noise import derived
from lodestar.generators.base import Generator, Prepared
from lodestar.generators.diffusion import Diffusion, PreparedSampling
from lodestar.generators.guide import Critic, Guide, Guides, Reference, check_given, chosen
from lodestar.generators.origin import Origin
from lodestar.generators.request import Asked, Frame, Request, Settings, settings
from lodestar.guidance import REFERENCE, Sees
from lodestar.models.labels import check_classes
from lodestar.models.look import parameters
from lodestar.nets.precision import Precision


class Stage:
    """A further stage of a cascade: an upsampler, with settings and guides of its own."""

    def __init__(self, model: Diffusion, *, guides: Guides | None = None, **how: Unpack[Asked]) -> None:
        """guides: by role, for this stage's guidance. how: steps, sampler, guidance, clamp, temperature, reuse, augment, as
        in `Generator.sample`; default the model's own. Raises Problem."""
        if not isinstance(model, Diffusion):
            raise Problem(f"a further stage of a cascade is a diffusion model that enlarges pictures, and not {shown(model)}")
        if model.config.denoiser.low_res is None:
            raise Problem("it makes pictures from noise and enlarges none: a further stage of a cascade is an upsampler")
        self.model, self.settings = model, model.resolved(further(**how))
        check_given(guides or {}, self.settings.guidance)
        self.guides = chosen(self.settings.guidance, guides or {}, model.companions)

    @property
    def small(self) -> tuple[int, int, int]:
        """Channels, height and width of the pictures that are enlarged."""
        size = self.model.config.denoiser.low_res
        assert size is not None, "an upsampler"
        return (self.model.shape[0], *size)

    @property
    def texts(self) -> bool:
        """True if prompts are read, by the model or by a guide."""
        return self.model.hears(self.guides)

    @property
    def digest(self) -> str:
        """SHA-256 of the model with the settings and guides; empty if built in code."""
        guides = [f"{role}={guide.digest}" for role, guide in sorted(self.guides.items())]
        return _digest(self.model.digest, self.settings.to_json(), *guides) if self.model.digest else ""


def further(**how: Unpack[Asked]) -> Settings:
    """The settings of a further stage. Raises Problem."""
    asked = settings(**how)
    if guided := [each.kind for each in asked.guidance if REFERENCE in each.roles]:
        raise Problem(f"guidance {guided[0]}: reference pictures are for the first stage of a cascade alone")
    return asked


@dataclass(frozen=True)
class PreparedCascade:
    """A checked request to a cascade."""

    first: Prepared
    later: tuple[PreparedSampling, ...]
    areas: tuple[int, ...]
    """Number of pixels of each stage's pictures."""

    @property
    def length(self) -> int:
        return sum(each.length for each in (self.first, *self.later))

    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, batch by batch through all stages, a frame for every step of each; see `Prepared`.

        start: initial noise of the first stage. A later stage has at most as many pixels at once as the first, and at least one
        picture.
        """
        yield from self._onward(0, self.first.frames(batch_size, start), 0, 0, batch_size)

    def _onward(self, number: int, frames: Iterator[Frame], first: int, before: int, batch_size: int) -> Iterator[Frame]:
        """The frames of a stage and of the stages after it; first: number of its first picture; before: steps taken before."""
        for frame in frames:
            whole = Frame(first + frame.first, before + frame.step, self.length, frame.x, frame.decode)
            yield whole
            if frame.final and number < len(self.later):
                made, following = whole.images, self.later[number]
                rows = following.request.only(*range(whole.first, whole.first + len(made)))
                enlarging = replace(following, request=rows, handed={"low_res": made})
                size = max(1, batch_size * self.areas[0] // self.areas[number + 1])
                yield from self._onward(number + 1, enlarging.frames(size), whole.first, before + frame.steps, batch_size)


class Cascade(Generator):
    """Generators in series: pictures made from noise, and enlarged by one upsampler after another.

    Picture k depends on its own seed alone in all stages. Labels and prompts reach every stage that knows them.
    """

    first: Generator
    """The first stage."""
    later: tuple[Stage, ...]
    """The further stages."""

    def __init__(self, stages: Sequence[Generator | Stage]) -> None:
        """stages: a generator, then upsamplers, alone or as a `Stage` with settings. Raises Problem where they do not chain."""
        given = list(checked("stages", stages, InstanceOf[Sequence[Any]]))
        if len(given) < 2 or not isinstance(given[0], Generator):
            raise Problem(f"a cascade has a generator and at least one upsampler: {shown(stages)}")
        first, rest = given[0], given[1:]
        if isinstance(first, Cascade):
            rest = [*first.later, *rest]
            first = first.first
        if isinstance(first, Diffusion) and first.config.denoiser.low_res is not None:
            raise Problem(f"{_called(first)} enlarges pictures: a cascade begins with a model that makes them from noise")
        later: list[Stage] = []
        for number, each in enumerate(rest, 2):
            with _stage(number, each.model if isinstance(each, Stage) else each):
                later.append(each if isinstance(each, Stage) else Stage(each))
        self.first, self.later = first, tuple(later)
        self._check_chain()
        models = [first, *(stage.model for stage in later)]
        self.name = " then ".join(map(_called, models))
        digests = [first.digest, *(stage.digest for stage in later)]
        self.digest = _digest(*digests) if all(digests) else ""
        self.companions, self.prior = first.companions, first.prior

    def _check_chain(self) -> None:
        before: Generator = self.first
        for number, stage in enumerate(self.later, 2):
            with _stage(number, stage.model):
                if stage.small != before.shape:
                    raise Problem(
                        f"it enlarges pictures of {_spelled(stage.small)}, and {_called(before)} makes {_spelled(before.shape)}: "
                        "sizes and channels of a cascade have to chain"
                    )
                if stage.model.known[1] is not None:
                    check_classes("upsampler", stage.model.known, self.known)
            before = stage.model

    def __repr__(self) -> str:
        return f"Cascade({', '.join(map(repr, (self.first, *(stage.model for stage in self.later))))})"

    def _repr_html_(self) -> str:
        """The tables of the stages' parameters, for a notebook."""
        return "".join(map(parameters, (self.first, *(stage.model for stage in self.later))))

    @property
    def shape(self) -> tuple[int, int, int]:
        return self.later[-1].model.shape

    @property
    def space(self) -> tuple[int, int, int]:
        return self.first.space

    @property
    def device(self) -> torch.device:
        return self.first.device

    @property
    def precision(self) -> Precision:
        return self.first.precision

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        models = (self.first, *(stage.model for stage in self.later))
        return next((model.known for model in models if model.known[1] is not None), self.first.known)

    @property
    def reads(self) -> bool:
        return self.first.reads or any(stage.texts for stage in self.later)

    @property
    def styles(self) -> tuple[str, ...]:
        return next((model.styles for model in (self.first, *(stage.model for stage in self.later)) if model.styles), ())

    @property
    def defaults(self) -> Settings:
        return self.first.defaults

    def resolved(self, how: Settings) -> Settings:
        return self.first.resolved(how)

    def request(self, wanted: Sequence[Ask], seed: int, how: Settings) -> Request:
        return super().request(wanted, seed, how).replace(later=tuple(stage.settings for stage in self.later))

    def using(self, prior: Any) -> Self:
        return type(self)([self.first.using(prior), *self.later])

    def reference(self, pictures: Any) -> Reference:
        return self.first.reference(pictures)

    def agree(self, guide: Critic, sees: Sees) -> None:
        self.later[-1].model.agree(guide, sees)

    def judge(self) -> Guide | None:
        return self.later[-1].model.judge()

    def label(self, asked: str | int | None, guides: Guides) -> Label:
        if asked is None or asked == "none":
            self.first.label(asked, guides)
            for number, stage in enumerate(self.later, 2):
                with _stage(number, stage.model):
                    stage.model.label(asked, stage.guides)
            return None
        models = ((self.first, guides), *((stage.model, stage.guides) for stage in self.later))
        knowing = next((each for each in models if each[0].classes(each[1])[1] is not None), models[0])
        return knowing[0].label(asked, knowing[1])

    def prompt(self, asked: str | None, cut: bool = False, guides: Guides | None = None) -> str | None:
        heard = self.first.hears(guides) or not self.reads
        asked = self.first.prompt(asked, cut, guides) if heard else asked
        for stage in (stage for stage in self.later if stage.texts):
            asked = stage.model.prompt(asked, cut, stage.guides)
        return asked

    def origin(self, guides: Guides | None = None) -> Origin:
        later = tuple(stage.model.origin(stage.guides) for stage in self.later)
        return replace(self.first.origin(guides), names=self.classes(guides)[0], later=later)

    def prepare(self, asked: Request, guides: Guides | None = None) -> PreparedCascade:
        checked("request", asked, InstanceOf[Request])
        how = asked.later or tuple(stage.settings for stage in self.later)
        if len(how) != len(self.later):
            raise Problem(f"settings are given for {1 + len(how)} stages: this cascade has {1 + len(self.later)}")
        guiding = chosen(asked.settings.guidance, guides or {}, self.first.companions)
        theirs, labelled = self.first.classes(guiding), self.classes(guiding)[1] is not None
        if theirs[1] is not None:
            check_classes("first stage", theirs, self.known if self.known[1] is not None else theirs)
        # What nobody knows is left to the first stage, which refuses it.
        asks = _heard(asked.asks, theirs[1] is not None or not labelled, self.first.hears(guiding) or not self.reads)
        first = self.first.prepare(Request(asks=asks, settings=asked.settings), guiding)
        later: list[PreparedSampling] = []
        for number, (stage, each) in enumerate(zip(self.later, how, strict=True), 1):
            asks = _heard(asked.asks, stage.model.classes(stage.guides)[1] is not None, stage.texts)
            asks = tuple(ask.model_copy(update={"seed": derived(ask.seed, number), "reference": 0}) for ask in asks)
            blank = torch.zeros(1, *stage.small, dtype=torch.uint8).expand(len(asks), -1, -1, -1)
            with _stage(number + 1, stage.model):
                later.append(stage.model.prepare(Request(asks=asks, settings=each), stage.guides, {"low_res": blank}))
        areas = tuple(height * width for _, height, width in (self.first.shape, *(stage.model.shape for stage in self.later)))
        return PreparedCascade(first, tuple(later), areas)


def _heard(asks: Sequence[Ask], labels: bool, texts: bool) -> tuple[Ask, ...]:
    """The asks as a stage hears them: without labels, or texts, that it does not know."""
    dropped = {name: None for name, known in (("label", labels), ("text", texts)) if not known}
    return tuple(ask.model_copy(update=dropped) if dropped else ask for ask in asks)


@contextmanager
def _stage(number: int, model: Any) -> Iterator[None]:
    """Names a stage in the Problems that are raised within."""
    try:
        yield
    except Problem as problem:
        raise Problem(f"stage {number} of the cascade ({_called(model)}): {problem}") from None


def _called(model: Any) -> str:
    return getattr(model, "name", "") or "a model built in code"


def _spelled(shape: tuple[int, int, int]) -> str:
    return f"{shape[1]}×{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
