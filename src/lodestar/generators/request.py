"""Requests to a generator, with their settings, and the frames of the answer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypedDict

from pydantic import Field, field_validator
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.conditions import Ask, Label
from lodestar.config import COUNT, TIMESTEPS, Config, Problem, checked, kinds, nearest, parse, shown
from lodestar.core.noise import seeds_from
from lodestar.core.plan import PlanText, parse_plan
from lodestar.guidance import AnyGuidance, Guidance, Limit, Steering
from lodestar.guidance import Own as OwnGuidance
from lodestar.images import png, sheet
from lodestar.samplers import AnySampler
from lodestar.samplers import Own as OwnSampler

STAGES = 100
"""Maximum number of further stages of a cascade."""


class Settings(Config):
    """Settings of sampling."""

    steps: PlanText | None = None
    """Sampling plan in text (`lodestar.core.plan`); None is the model's own."""
    sampler: AnySampler | None = None
    """Sampler; None is the model's own."""
    guidance: tuple[AnyGuidance, ...] = Field(default=(), max_length=100)
    """Guidance, in the order of application."""
    clamp: bool = True
    """Limit x̂₀ by the model's own `limit`, before a classifier's gradient and after, unless the guidance limits it."""
    temperature: float = Field(default=1.0, gt=0, le=1_000)
    """Standard deviation of all noise, initial and during sampling; below 1 gives likelier and less diverse pictures. Of a prior
    of codes, what logits are divided by."""
    top_k: int | None = Field(default=None, ge=1, le=2**20)
    """Number of the likeliest codes from which each code is drawn, of a prior of codes; None is all."""
    top_p: float | None = Field(default=None, gt=0, le=1)
    """Probability of the likeliest codes, the fewest with so much together, from which each is drawn; 1 is all."""
    reuse: int = Field(default=1, ge=1, le=TIMESTEPS)
    """The whole network runs in every so many steps, and in the others its finest resolution alone, with the deep features of the
    last whole step (DeepCache, Ma et al. 2024); 1 is no reuse."""
    augment: float = Field(default=0.0, ge=0, le=1)
    """Noise level of the small pictures that an upsampler trained so enlarges (conditioning augmentation, Ho et al. 2022): more
    lets it change more of them, and mend their faults."""
    truncation: float | None = Field(default=None, gt=0, le=1_000)
    """Bound of the latent numbers of a GAN, in deviations (Brock et al. 2019): lower gives better and less diverse pictures; None
    is no bound."""

    @field_validator("steps")
    @classmethod
    def _readable(cls, steps: str | None) -> str | None:
        if steps is not None:
            parse_plan(steps)
        return steps

    def check_effective(self, name: str, why: str, *effective: str) -> None:
        """Raise Problem for a given setting without effect. name: what it would act on; why: reason for the user."""
        for setting, default in Settings():
            if setting not in effective and getattr(self, setting) != default:
                raise Problem(f"{setting} has no effect on {name}: {why}")

    def complete(self, limit: Limit | None) -> list[Guidance]:
        """The guidance, with the model's own limit of x̂₀ inserted."""
        guidance: list[Guidance] = list(self.guidance)
        if limit is not None and self.clamp and not any(isinstance(each, Limit) for each in guidance):
            place = next((k for k, each in enumerate(guidance) if isinstance(each, Steering)), len(guidance))
            guidance.insert(place, limit)
        return guidance


AskedLabel = str | int | None
"""A label as it is given: a class by name or number, several ("dog+ship"); None or "none" is none."""


def listed(given: Any) -> list[AskedLabel] | None:
    """A list of labels, from one or several; None for none. Numbers may be of numpy or torch. Raises Problem."""
    given = given.tolist() if hasattr(given, "tolist") else given
    if given is None or isinstance(given, str | int):
        return None if given is None else [given]
    if not isinstance(given, Iterable) or isinstance(given, bytes | Mapping):
        raise Problem(f"label {shown(given)}: a class by name or number, or a list of them")
    return [each.tolist() if hasattr(each, "tolist") else each for each in given]


class Asked(TypedDict, total=False):
    """Settings as they are given in Python: objects, or their short forms in text."""

    steps: str | int | None
    sampler: Any
    guidance: Any
    clamp: bool
    temperature: float
    top_k: int | None
    top_p: float | None
    reuse: int
    augment: float
    truncation: float | None


class Wanted(Asked, total=False):
    """Settings as they are given in Python, with prompts and reference pictures."""

    prompt: str | Iterable[str | None] | None
    """A text, or one for each picture, in turn."""
    cut_prompt: bool
    """Cut a prompt that is longer than the model's context, instead of refusing it."""
    style: str | Iterable[str | None] | None
    """A style of the model's, or one for each picture, in turn: a word behind the prompt."""
    reference: Any
    """Pictures that guidance by content, structure or style compares with: one for all, or several in turn."""


@dataclass(frozen=True)
class Prompts:
    """Prompts as they are given."""

    texts: tuple[str | None, ...] = ()
    """A text for each picture, in turn; none for pictures without."""
    cut: bool = False
    """Cut texts that are too long."""
    styles: tuple[str | None, ...] = ()
    """A style for each picture, in turn; none for pictures without."""

    @property
    def turns(self) -> int:
        """Number of pictures after which every prompt and every style has had a turn."""
        return max(len(self.texts), len(self.styles))

    @classmethod
    def of(cls, given: Any = None, cut: bool = False, style: Any = None) -> Self:
        """One prompt or several, and one style or several. Raises Problem for anything but texts."""
        return cls(_texts("prompt", given), checked("cut_prompt", cut, bool), _texts("style", style))


def _texts(what: str, given: Any) -> tuple[str | None, ...]:
    """One text or several; none for None. Raises Problem for anything else."""
    several = [given] if given is None or isinstance(given, str) else given
    if not isinstance(several, Iterable) or isinstance(several, bytes | Mapping):
        raise Problem(f"{what} {shown(given)}: a text, or a list of texts")
    texts = tuple(several)
    if odd := [each for each in texts if not isinstance(each, str | None)]:
        raise Problem(f"{what} {shown(odd[0])}: a text, or a list of texts")
    if not texts:
        raise Problem(f"{what} is {shown(given)}: give at least one text, or None for none")
    return () if texts == (None,) else texts


def taken(given: Wanted) -> tuple[Prompts, Asked]:
    """The prompts among settings as they are given, and the others. Raises Problem."""
    others: Any = {name: value for name, value in given.items() if name not in ("prompt", "cut_prompt", "style")}
    return Prompts.of(given.get("prompt"), given.get("cut_prompt", False), given.get("style")), others


def settings(**given: Any) -> Settings:
    """Settings from values by name: ``settings(steps=20, sampler="ddim", guidance="cfg:3")``.

    guidance: one, or several in the order of application: each a `Guidance`, its short form, or a function ``(inner, context)``
    that returns a `Denoise`. sampler: a `Sampler`, its short form, or a function ``(denoise, x, steps, noise)`` that yields
    `State`. Raises Problem, also for an unknown name.
    """
    for name in given:
        if name not in Settings.model_fields:
            known = ", ".join(Settings.model_fields)
            raise Problem(f"unknown setting {name!r}: choose from {known}{nearest(name, Settings.model_fields)}")
    sampler, guidance = given.get("sampler"), given.get("guidance", ())
    listed = guidance if isinstance(guidance, Sequence) and not isinstance(guidance, str) else [guidance]
    return Settings(
        **given
        | {
            "sampler": None if sampler is None else _read("sampler", sampler, AnySampler, OwnSampler),
            "guidance": tuple(_read("guidance", each, AnyGuidance, OwnGuidance) for each in listed if each is not None),
        }
    )


def _read(what: str, given: Any, union: Any, own: type[OwnGuidance] | type[OwnSampler]) -> Any:
    """A value for `Settings`: text is parsed, and objects known to this program alone are wrapped."""
    if isinstance(given, str):
        return parse(what, given, union)
    foreign = not isinstance(given, Config | type) or isinstance(given, own.__base__ or own)
    return own.of(given) if callable(given) and foreign and type(given) not in kinds(union).values() else given


class Request(Config):
    """A request for pictures. The command line, Python and a manifest all make one of these."""

    asks: tuple[Ask, ...] = Field(min_length=1, max_length=COUNT)
    """Asks, one for each picture."""
    settings: Settings = Settings()
    later: tuple[Settings, ...] = Field(default=(), max_length=STAGES)
    """Settings of the further stages of a cascade, in their order."""

    def only(self, *indices: int) -> Self:
        """The request for some of its pictures alone."""
        return self.model_copy(update={"asks": tuple(self.asks[k] for k in indices)})

    @property
    def labels(self) -> list[Label]:
        """The label of each picture."""
        return [ask.label for ask in self.asks]

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture."""
        return [ask.seed for ask in self.asks]


def request(labels: Sequence[Label], seed: int = 0, how: Settings | None = None) -> Request:
    """A request for pictures with these labels; picture k has the seed `seed` + k. Raises Problem."""
    return seeded([Ask(label=label) for label in labels], seed, how)


def seeded(wanted: Sequence[Ask], seed: int = 0, how: Settings | None = None) -> Request:
    """A request for what these asks want; picture k has the seed `seed` + k. Raises Problem."""
    seeds = seeds_from(seed, len(wanted))
    asks = tuple(ask.model_copy(update={"seed": own}) for own, ask in zip(seeds, wanted, strict=True))
    return Request(asks=asks, settings=how or Settings())


@dataclass(frozen=True)
class Frame:
    """Some of the requested pictures, as estimated after a step; after the last step, the pictures themselves."""

    first: int
    """Number of the first of these pictures in the request."""
    step: int
    """Steps taken."""
    steps: int
    """Steps in all."""
    x: Tensor = field(repr=False)
    """Encoded pictures, as the model is trained on them: float32 [B, …]; pixels are in [−1, 1]."""
    decode: Callable[[Tensor], Tensor] = field(default=pixels.decode, repr=False)
    """Decoder of the encoded pictures."""

    @property
    def images(self) -> Tensor:
        """Pictures, uint8 [B, C, H, W]."""
        return self.decode(self.x).cpu()

    def rows(self, start: int, count: int) -> Frame | None:
        """The frame of a part of the request alone, of `count` pictures from number `start`; None where it has none of them."""
        begin, end = max(start, self.first), min(start + count, self.first + len(self.x))
        if begin >= end:
            return None
        return replace(self, first=begin - start, x=self.x[begin - self.first : end - self.first])

    def _repr_png_(self) -> bytes:
        """The grid for a notebook."""
        return png(sheet(self.images))

    @property
    def final(self) -> bool:
        """True for the frame of the finished pictures."""
        return self.step == self.steps

    @property
    def done(self) -> float:
        """Progress of the request in pictures: finished ones, and the fraction of the steps of the present ones."""
        return self.first + len(self.x) * self.step / self.steps
