"""Generators: models that answer a request with a stream of frames."""

from __future__ import annotations

import abc
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Protocol, Self, Unpack

import torch
from pydantic import InstanceOf
from torch import Tensor

from lodestar.conditions import Ask, Label, Texts
from lodestar.config import BatchSize, Candidates, Config, Count, Note, Problem, checked, nearest, shown
from lodestar.core.noise import seeds_from
from lodestar.data.captions import styled
from lodestar.display import live
from lodestar.files import reading
from lodestar.generators.guide import (
    Companions,
    Critic,
    Guide,
    Guides,
    Reader,
    Reference,
    Rival,
    check_given,
    chosen,
    given_guides,
    referring,
)
from lodestar.generators.origin import Origin
from lodestar.generators.rejection import JUDGES, candidates, check_judge, surest
from lodestar.generators.request import Frame, Prompts, Request, Settings, Wanted, listed, seeded, settings, taken
from lodestar.generators.samples import Samples
from lodestar.guidance import Sees
from lodestar.models.labels import read_label
from lodestar.nets.precision import Precision

PRIOR = "prior"
"""Name of an ask's value: the settings of the prior."""


class Prepared(Protocol):
    """A checked request: all refusals have been raised before."""

    @property
    def length(self) -> int:
        """Number of steps of each picture."""

    def frames(self, batch_size: int = 32, start: Tensor | None = None) -> Iterator[Frame]:
        """The answer, batch by batch, a frame for every step.

        start: initial noise, float32 [N, C, H, W] of deviation 1; by default drawn from the seeds.
        """


class Generator(abc.ABC):
    """A model that answers a `Request`."""

    name: str = ""
    """Name or path of the generator; empty if built in code."""
    digest: str = ""
    """SHA-256 of the loaded file, as `lodestar info` shows it; empty if built in code."""
    provenance: Mapping[str, Any] = MappingProxyType({})
    """Provenance in the loaded file: images seen, data, version, measured numbers."""
    companions: Companions = MappingProxyType({})
    """Loaders of the generator's own guides, by role."""
    prior: Config | None = None
    """Settings of the way from prompts to embeddings, of a generator with priors; None for others."""

    @property
    @abc.abstractmethod
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the pictures."""

    @property
    def space(self) -> tuple[int, int, int]:
        """Shape of a picture's noise; by default that of the picture."""
        return self.shape

    @property
    def text(self) -> Texts | None:
        """The generator's condition on texts; None without."""
        return None

    @property
    def droppable(self) -> bool:
        """True if the generator was also trained without its conditions."""
        return False

    @property
    def reads(self) -> bool:
        """True if the generator makes pictures of prompts."""
        return self.text is not None

    @property
    def styles(self) -> tuple[str, ...]:
        """The styles that the generator knows."""
        return () if self.text is None else self.text.styles

    @property
    @abc.abstractmethod
    def device(self) -> torch.device:
        """Device of the weights."""

    @property
    @abc.abstractmethod
    def precision(self) -> Precision:
        """Number format of the computation."""

    @property
    @abc.abstractmethod
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """The names of the supported classes (empty for none), and their number (None for none)."""

    @property
    @abc.abstractmethod
    def defaults(self) -> Settings:
        """Default settings."""

    @abc.abstractmethod
    def prepare(self, asked: Request, guides: Guides | None = None) -> Prepared:
        """Check a request, before any work is done. guides: by role; default its own. Raises Problem if it cannot be answered."""

    def using(self, prior: Any) -> Self:
        """The generator with another prior, or its short form. Raises Problem for a generator without priors."""
        raise Problem(
            f"prior {shown(prior)} is for a bundle of a decoder, a CLIP and priors, and {self.name or 'this model'} is none"
        )

    def reference(self, pictures: Any) -> Reference:
        """Reference pictures for guidance by likeness, from files, folders, PIL pictures or arrays, brought to the size of those
        that are made here. Raises Problem."""
        raise Problem(f"{self.name or 'this generator'} takes no reference pictures")

    @abc.abstractmethod
    def agree(self, guide: Critic, sees: Sees) -> None:
        """Raise Problem unless a critic knows what is made here; sees "noisy": also what is made on the way."""

    def label(self, asked: str | int | None, guides: Guides) -> Label:
        """A class, or several, by name or number; "none" and None are none. Raises Problem."""
        if asked is None or asked == "none":
            if self.known[1] is not None and not self.droppable:
                raise Problem("label none: this model was never trained without its classes")
            return None
        names, classes = self.classes(guides)
        if classes is None:
            raise Problem(f"label {asked!r}: this model knows no classes")
        return read_label(asked, names, classes)

    def sample(
        self,
        label: str | int | Sequence[str | int | None] | None = None,
        count: int | None = None,
        *,
        seed: int | torch.Generator = 0,
        batch_size: int = 32,
        guides: Guides | None = None,
        best_of: int = 1,
        start: Tensor | None = None,
        callback: Callable[[Frame], None] | None = None,
        **how: Unpack[Wanted],
    ) -> Samples:
        """Sample pictures.

        label: a class by name or number, several ("dog+ship", "not cat"), or one for each picture; None takes the classes in
        turn. count: how many pictures (default: as many as labels). Picture k has the seed `seed` + k and is the same whatever
        the batch size; a generator of torch draws the first seed. guides: the models that guidance asks for, by role; default
        its own, where it has them. best_of: number of candidates for each picture, of which the guide "judge", a classifier
        or a CLIP, keeps the surest (`lodestar.generators.rejection`); candidate j of picture k has the seed `seed` + k·best_of +
        j. prompt: a text, or several in turn; `cut_prompt=True` shortens those that are too long. style: a style that the model
        knows, or several in turn, behind the prompts. reference: the pictures to which
        guidance by content, structure or style compares, as files, PIL pictures or arrays: one for all, or several in turn.
        start: noise to begin with, float32 [N, C, H, W] of deviation 1, in the place of what the seeds draw. callback: called
        with each `Frame`. how: steps, sampler, guidance, clamp, temperature, reuse, augment, truncation, see `settings`. Raises
        Problem.
        """
        best_of = checked("best of", best_of, Candidates)
        checked("callback", callback, Callable | None)
        asked, guiding, given = self.asked(label, count, seed=seed, best_of=best_of, guides=guides, **how)
        judge = given.get("judge") or (self.judge() if best_of > 1 else None)
        frames = reported(self.stream(asked, guides=guiding, batch_size=batch_size, start=start), callback)
        if best_of > 1:
            places = {seed: place for place, seed in enumerate(asked.seeds)}
            images, asked = self.surest(frames, asked, best_of, judge)
            start = None if start is None else torch.as_tensor(start)[[places[seed] for seed in asked.seeds]]
        else:
            images = torch.cat([frame.images for frame in frames if frame.final])
        again = partial(self.stream, asked, guides=guiding, batch_size=batch_size, start=start)
        return Samples(images, asked, self.origin(guiding), again=again)

    def frames(
        self,
        label: str | int | Sequence[str | int | None] | None = None,
        count: int | None = None,
        *,
        seed: int | torch.Generator = 0,
        batch_size: int = 32,
        guides: Guides | None = None,
        start: Tensor | None = None,
        **how: Unpack[Wanted],
    ) -> Iterator[Frame]:
        """Pictures while they are made: a `Frame` after every step, batch by batch, with the estimated x̂₀.

        In a notebook they are drawn as they go, each in the place of the one before. The rest is `sample`'s. Raises Problem at
        once.
        """
        asked, guiding, _ = self.asked(label, count, seed=seed, guides=guides, **how)
        return live(self.stream(asked, guides=guiding, batch_size=batch_size, start=start))

    def asked(
        self,
        label: str | int | Sequence[str | int | None] | None = None,
        count: int | None = None,
        *,
        seed: int | torch.Generator = 0,
        best_of: int = 1,
        guides: Guides | None = None,
        **how: Unpack[Wanted],
    ) -> tuple[Request, dict[str, Guide], Guides]:
        """The request for what `sample` is given, the guides of its guidance, and all that were given. Raises Problem."""
        prompts, chosen_settings, guiding, given = self.guided(guides, how, ["judge"] if best_of > 1 else [])
        wanted = self.wanted(listed(label), prompts, count, guiding)
        asked = self.request(candidates(wanted, best_of), _first_seed(seed), chosen_settings)
        return referring(asked, guiding, best_of), guiding, given

    def guided(
        self, guides: Guides | None, how: Wanted, others: Sequence[str] = ()
    ) -> tuple[Prompts, Settings, dict[str, Guide], Guides]:
        """The prompts and settings in what is given, the guides of its guidance, and all that were given.

        others: roles of guides that guidance does not ask for. Raises Problem.
        """
        reference = how.pop("reference", None)
        prompts, rest = taken(how)
        chosen_settings = settings(**rest)
        given = given_guides(guides, None if reference is None else self.reference(reference))
        check_given(given, chosen_settings.guidance, others)
        return prompts, chosen_settings, chosen(chosen_settings.guidance, given, self.companions), given

    def stream(
        self, asked: Request, *, guides: Guides | None = None, batch_size: int = 32, start: Tensor | None = None
    ) -> Iterator[Frame]:
        """Answer a request batch by batch, a frame for every step. Raises Problem at once if it cannot be answered."""
        batch_size = checked("batch size", batch_size, BatchSize)
        checked("request", asked, InstanceOf[Request])
        with reading("start", "is no array of numbers"):
            start = None if start is None else torch.as_tensor(start, dtype=torch.float32)
        if start is not None and start.shape != (len(asked.asks), *self.space):
            raise Problem(f"start is {tuple(start.shape)}: it has to be {(len(asked.asks), *self.space)}")
        return self.prepare(asked, guides).frames(batch_size, start)

    def labels(
        self, asked: Sequence[str | int | None] | None, count: int | None, guides: Guides | None = None
    ) -> tuple[Label, ...]:
        """A label for each of `count` pictures: those asked for, in turn; all classes in turn where none is. Raises Problem.

        The classes are its own, or those of a guide where it knows none.
        """
        count = checked("count", count, Count | None)
        _, classes = self.classes(guides)
        numbers: list[Label] = [None] if classes is None else list(range(classes))
        if asked is not None:
            numbers = [self.label(each, guides or {}) for each in asked]
        if not numbers:
            raise Problem(f"label is {shown(asked)}: give at least one, or None for every class in turn")
        return tuple(numbers[k % len(numbers)] for k in range(len(numbers) if count is None else count))

    def wanted(
        self, asked: Sequence[str | int | None] | None, prompts: Prompts, count: int | None, guides: Guides | None = None
    ) -> tuple[Ask, ...]:
        """Asks for `count` pictures, without seeds: with `labels`, prompts in turn, and the prior's settings. Raises Problem."""
        texts = self.texts(prompts, guides)
        if asked is None and prompts.texts and count is None:
            count = prompts.turns
        labels = self.labels(asked, count, guides)
        total = max(len(labels), prompts.turns) if count is None else count
        if (several := max(len(asked or ()), prompts.turns)) > total:
            why = f"{several} labels or prompts come in turn, and the number of pictures is {total}: the last have none"
            warnings.warn(Note(why), stacklevel=2)
        told = {} if self.prior is None else {PRIOR: self.prior.model_dump(mode="json")}
        pairs = [(labels[k % len(labels)], texts[k % len(texts)]) for k in range(total)]
        return tuple(Ask(label=label, text=text, others=told if text else {}) for label, text in pairs)

    def hears(self, guides: Guides | None = None) -> bool:
        """True if prompts are read, by the generator or by one of the guides."""
        return self.reads or bool(_readers(guides))

    def texts(self, prompts: Prompts, guides: Guides | None = None) -> list[str | None]:
        """The prompts as they are to be asked for, with styles in turn, at least one: None without any. Raises Problem."""
        texts, styles = prompts.texts or (None,), prompts.styles or (None,)
        for style in dict.fromkeys(style for style in styles if style is not None):
            self._check_style(style)
        pairs = [(texts[k % len(texts)], styles[k % len(styles)]) for k in range(math.lcm(len(texts), len(styles)))]
        return [self._styled(text, style, prompts.cut, guides) for text, style in pairs]

    def _check_style(self, style: str) -> None:
        if not self.styles:
            raise Problem(f"style {shown(style)}: this model was not trained with styles (data.style_column)")
        if style not in self.styles:
            raise Problem(f"style {shown(style)}: this model knows {', '.join(self.styles)}{nearest(style, self.styles)}")

    def _styled(self, text: str | None, style: str | None, cut: bool, guides: Guides | None) -> str | None:
        """A prompt with a style behind it, as it is to be asked for. Raises Problem."""
        if style is None:
            return self.prompt(text, cut, guides)
        if text is None or not text.strip():
            raise Problem(f"style {shown(style)} is a word of a prompt, and there is none")
        told = next((each for each in self.styles if text.endswith(styled("", each))), None)
        if told not in (None, style):
            raise Problem(f"prompt {shown(text)} names a style itself, and style {shown(style)} is asked for")
        whole = text if told == style else styled(text, style)
        if (asked := self.prompt(whole, cut, guides)) != whole:
            raise Problem(f"prompt {shown(text)} is too long for style {shown(style)} behind it: shorten it")
        return asked

    def prompt(self, asked: str | None, cut: bool = False, guides: Guides | None = None) -> str | None:
        """A prompt as it is to be asked for; None is none. cut: shorten one that is too long. Raises Problem.

        A model that knows no text leaves it to its guides.
        """
        if asked is None:
            return None
        return self._read(asked, cut, guides) if self.text is None else _own(asked, cut, self.text)

    def check_text(self, text: str | None, guides: Guides | None = None) -> None:
        """Raise Problem unless the model, and every guide that reads prompts, supports a prompt, or sampling without any."""
        if text is not None and (self.text is None or _readers(guides)):
            self._read(text, False, guides)
        if self.text is None:
            return
        if text is not None:
            self.text.check(text)
        elif not self.droppable:
            raise Problem("prompt none: this model was never trained without texts: give one")

    def classes(self, guides: Guides | None = None) -> tuple[tuple[str, ...], int | None]:
        """The names of the supported classes, and their number: the generator's own, or a guide's for an unconditional model."""
        every = (self.known, *(guide.known for guide in (guides or {}).values()))
        return next((known for known in every if known[1] is not None), self.known)

    def resolved(self, how: Settings) -> Settings:
        """Settings with the levels of the generator's own plan in the place of its name, for a request."""
        return how

    def request(self, wanted: Sequence[Ask], seed: int, how: Settings) -> Request:
        """The request for what these asks want, with settings as a manifest has them; picture k has the seed `seed` + k."""
        return seeded(wanted, seed, self.resolved(how))

    def complete(self, how: Settings) -> Settings:
        """Settings completed by the generator's own steps and sampler."""
        own, how = self.defaults, self.resolved(how)
        return how.replace(steps=how.steps or own.steps, sampler=how.sampler or own.sampler)

    def origin(self, guides: Guides | None = None) -> Origin:
        """Origin of pictures by this generator."""
        return Origin(self.name, self.digest, self.precision, self.classes(guides)[0], guides or {})

    def judge(self) -> Guide | None:
        """The generator's own judge, by default its classifier or CLIP; None without any."""
        own = next((self.companions[role] for role in JUDGES if role in self.companions), None)
        return None if own is None else own()

    def surest(self, frames: Iterator[Frame], asked: Request, best_of: int, guide: Guide | None) -> tuple[Tensor, Request]:
        """The judge's surest picture of every `best_of` in a row, and the request for these; see `rejection.surest`.

        Raises Problem, before the first frame, if the judge is unsuitable.
        """
        return surest(frames, asked, best_of, self.check_judge(guide, asked, best_of), self.device)

    def _read(self, asked: str, cut: bool, guides: Guides | None) -> str:
        """A prompt as guides are asked for it. Raises Problem where none reads any."""
        readers = _readers(guides)
        if not readers:
            raise Problem(f"prompt {shown(asked)}: {self.name or 'this model'} knows no text")
        for reader in readers:
            asked = reader.prompt(asked, cut)
        return asked

    def check_judge(self, guide: Guide | None, asked: Request, best_of: int) -> Critic:
        """The judge, checked. Raises Problem if unsuitable."""
        critic = check_judge(guide, asked, best_of)
        self.agree(critic, "clean")
        return critic


def _readers(guides: Guides | None) -> list[Reader]:
    """The guides that read prompts themselves. A weaker model is asked what the model is: it reads none where that does not."""
    return [guide for guide in (guides or {}).values() if isinstance(guide, Reader) and not isinstance(guide, Rival)]


def _first_seed(seed: int | torch.Generator) -> int:
    if isinstance(seed, torch.Generator):
        return int(torch.randint(2**62, (), generator=seed, device=seed.device))
    return seeds_from(seed, 1)[0]


def empty(asked: str) -> bool:
    """True for a prompt that asks for nothing, which a Note tells."""
    if not asked.strip():
        warnings.warn(Note(f"prompt {asked!r} is empty, and asks for nothing: its pictures are unconditional"), stacklevel=4)
    return not asked.strip()


def _own(asked: str, cut: bool, knows: Texts) -> str | None:
    """A prompt as a model is asked for it that knows texts; None for an empty one."""
    if empty(asked):
        return None
    whole, asked = asked, knows.cut(asked) if cut else asked
    if asked != whole:
        warnings.warn(Note(f"prompt {shown(whole)} is cut to {asked!r}"), stacklevel=3)
    return asked


def reported(frames: Iterator[Frame], callback: Callable[[Frame], None] | None) -> Iterator[Frame]:
    """The frames, with each of which the callback is called first."""
    for frame in frames:
        if callback is not None:
            callback(frame)
        yield frame
