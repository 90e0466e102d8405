"""Calls of the library for pictures, each with its line of the shell and its lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Problem
from lodestar.files import reading
from lodestar.generators import unclip_edits
from lodestar.generators.base import Generator, Prepared
from lodestar.generators.cascade import Cascade, Stage
from lodestar.generators.editor import Editor
from lodestar.generators.edits import AnyEdit, Interpolate, Upsample, Vary
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Guides
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.generators.spelled import STAGED, Spelled
from lodestar.generators.unclip import UnClip
from lodestar.web.shelf import Loading, Shelf

_SPELLED = {"origin": "from", "dtype": "precision"}
"""Options whose names are not those of Python."""


class Blend(Config):
    """A way from one picture to another, in a CLIP's space."""

    kind: Literal["blend"] = "blend"
    points: int = Field(default=8, ge=2, le=100_000)
    """Number of pictures, the two ends included."""


class TextDiff(Config):
    """A change of pictures by the difference of two texts, in a CLIP's space."""

    kind: Literal["textdiff"] = "textdiff"
    origin: str = Field(max_length=4_000)
    """Text that tells the picture as it is."""
    to: str = Field(max_length=4_000)
    """Text that tells the result."""
    strength: float = Field(default=0.4, ge=0, le=1)
    """Part of the way: 0 is the picture, 1 the difference of the texts alone."""


ClipEdit = Vary | Blend | TextDiff
Edits = AnyEdit | ClipEdit


@dataclass(frozen=True)
class Call:
    """A call: a model's `sample`, or with an edit and files of pictures its `edit`."""

    model: str
    given: Mapping[str, Any]
    """Keywords, as Python and the command line both have them."""
    how: Edits | None = None
    pictures: tuple[Path, ...] = ()
    """Pictures that are edited, in a folder with the mask and the reference picture."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The mask and the reference picture, by the names of their keywords."""
    guides: Mapping[str, str] = field(default_factory=dict)
    """Names of guides, by role."""
    then: tuple[str, ...] = ()
    """Further stages of a cascade, in the short form of the command line."""
    title: str = ""
    """Difference from the other calls of its request."""

    @property
    def count(self) -> int:
        """Number of pictures that are made."""
        if isinstance(self.how, Interpolate | Blend):
            return self.how.points
        made_of = len(self.pictures) * max(1, len(self.given.get("label", ())), len(self.given.get("prompt", ())))
        return int(self.given["count"]) if self.how is None else int(self.given.get("count", made_of))

    def like(self, other: Call) -> bool:
        """True if the pictures of both may be made in one batch: those of a model whose seeds and number alone differ."""
        one, two = (replace(call, given={**call.given, "count": 0, "seed": 0}) for call in (self, other))
        return self.how is None and not self.files and one == two

    def prepared(self, shelf: Shelf) -> Prepared:
        """The request of the call, checked, with all work left undone. Raises Problem."""
        if self.how is None:
            model = self._model(shelf)
            wanted, guiding, _ = model.asked(**self._given(shelf))
            return model.prepare(wanted, guiding)
        editor, asked, material, guides = self._edit(shelf)
        return editor.prepare_edit(asked, material, guides)

    def _model(self, shelf: Shelf) -> Generator:
        model = shelf.generator(self.model)
        return Cascade([model, *(_stage(each, shelf) for each in self._stages())]) if self.then else model

    def _given(self, shelf: Shelf) -> dict[str, Any]:
        guides = {role: shelf.guide(name) for role, name in self.guides.items()}
        return {**self.given, **{name: str(path) for name, path in self.files.items()}, "guides": guides or None}

    def _stages(self) -> list[Spelled]:
        return [Spelled.read(text, "then ", STAGED) for text in self.then]

    def _edit(self, shelf: Shelf) -> tuple[Editor, EditRequest, Material, Guides]:
        """The model of an edit, and its request, pictures and guides. Raises Problem."""
        model, given = shelf.generator(self.model), self._given(shelf)
        pictures = [read(path) for path in self.pictures]
        if isinstance(self.how, ClipEdit):
            if not isinstance(model, UnClip):
                raise Problem(f"{self.model} is no bundle of a decoder and its CLIP, which {self.how.kind} needs")
            settings, others = self._in_clip(given)
            request = partial(getattr(unclip_edits, self.how.kind), **settings)
            return model, *unclip_edits.asked(model, pictures, request, **others)
        if not isinstance(model, Editor):
            raise Problem(f"{self.model} edits no pictures")
        assert self.how is not None
        return model, *model.arranged(self.how, pictures, **given)

    def _in_clip(self, given: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """Keywords of an edit in a CLIP's space, and the others that are given."""
        assert self.how is not None
        own = {name: given[name] for name in ("count", "seed") if name in given}
        return _changed(self.how) | own, {name: value for name, value in given.items() if name not in own}

    def command(self, loading: Loading, out: str) -> str:
        """The line of the shell. out: the folder."""
        words = ["lodestar", *self._verb(), self.model, *(path.name for path in self.pictures)]
        settings = {} if self.how is None else _changed(self.how)
        told = {**settings, **self.given, **{name: path.name for name, path in self.files.items()}, **_changed(loading)}
        told["guide"] = [f"{role}={name}" for role, name in self.guides.items()]
        told["then"] = list(self.then)
        for name, value in told.items():
            if name == "label" and isinstance(self.how, Interpolate):
                name = "to"
            option = _SPELLED.get(name, name.replace("_", "-"))
            if isinstance(value, bool):
                words.append(f"--{option}" if value else f"--no-{option}")
                continue
            for each in value if isinstance(value, list) else [value]:
                words += [f"--{option}", str(each)]
        return shlex.join([*words, "--out", out])

    def _verb(self) -> tuple[str, ...]:
        if self.how is None:
            return ("sample",)
        return ("upsample",) if isinstance(self.how, Upsample) else ("edit", self.how.kind)

    def python(self, loading: Loading, out: str) -> str:
        """The lines of Python. out: the folder."""
        given = {**self.given, **{name: path.name for name, path in self.files.items()}}
        lines, pictures = ["import lodestar"], [repr([path.name for path in self.pictures])]
        if isinstance(self.how, ClipEdit):
            lines = ["from functools import partial", "", *lines]
            lines.append(f"from lodestar.generators.unclip_edits import edited, {self.how.kind}")
            settings, given = self._in_clip(given)
            function, what = "edited", ["model", *pictures, f"partial({', '.join([self.how.kind, *_keywords(settings)])})"]
        elif self.how is None:
            function, what = "model.sample", []
        else:
            edit = f"lodestar.edits.{type(self.how).__name__}({', '.join(_keywords(_changed(self.how)))})"
            function, what = "model.edit", [edit, *pictures]
        call = f"{function}({', '.join([*what, *_keywords(given), *_guides(self.guides, loading)])})"
        lines += ["", f"model = {self._loaded(loading)}", f"samples = {call}", f"lodestar.save(samples, {out!r})"]
        return "\n".join(lines)

    def _loaded(self, loading: Loading) -> str:
        """The model, or the cascade, in Python."""
        whole = _load(self.model, loading)
        if not self.then:
            return whole
        later = ([_load(each.model, loading), *_keywords(each.asked), *_guides(each.guides, loading)] for each in self._stages())
        stages = (f"lodestar.Stage({', '.join(words)})" for words in later)
        return f"lodestar.Cascade([{', '.join([whole, *stages])}])"


def make(calls: Sequence[Call], shelf: Shelf, callback: Callable[[int, Frame], None]) -> list[Samples]:
    """The pictures of each call, where several are alike (`Call.like`) made in batches together.

    callback: called after each step with the number of each call and its part of the frame. Raises Problem.
    """
    first = calls[0]
    if first.how is not None:
        editor, edit, material, guiding = first._edit(shelf)
        return [editor.edited(edit, material, guiding, callback=partial(callback, 0))]
    model = first._model(shelf)
    requests = [model.asked(**call._given(shelf)) for call in calls]
    (asked, guides, _), rows, ends = requests[0], [len(each.asks) for each, *_ in requests], 0
    starts = [(ends := ends + count) - count for count in rows]
    made: list[list[Tensor]] = [[] for _ in calls]
    whole = asked.replace(asks=tuple(ask for each, *_ in requests for ask in each.asks))
    for frame in model.stream(whole, guides=guides):
        for number, (start, count) in enumerate(zip(starts, rows, strict=True)):
            if part := frame.rows(start, count):
                callback(number, part)
                if part.final:
                    made[number].append(part.images)
    origin = model.origin(guides)
    return [
        Samples(torch.cat(images), each, origin, again=partial(model.stream, each, guides=guides))
        for images, (each, *_) in zip(made, requests, strict=True)
    ]


def read(path: Path) -> Image.Image:
    """A picture that a client has sent. Raises Problem where it cannot be decoded."""
    with reading(path.name, "cannot be decoded"), Image.open(path) as picture:
        picture.load()
        return picture


def _stage(spelled: Spelled, shelf: Shelf) -> Stage:
    """A further stage of a cascade, of a model of the list. Raises Problem."""
    model: Any = shelf.generator(spelled.model)
    return Stage(model, guides={role: shelf.guide(name) for role, name in spelled.guides.items()}, **spelled.asked)


def _load(name: str, loading: Loading) -> str:
    return f"lodestar.load({', '.join([repr(name), *_keywords(_changed(loading))])})"


def _keywords(given: Mapping[str, Any]) -> Iterable[str]:
    return (f"{name}={value!r}" for name, value in given.items())


def _guides(named: Mapping[str, str], loading: Loading) -> Iterable[str]:
    """The keyword of guides, where there are any, in Python."""
    each = ", ".join(f"{role!r}: {_load(name, loading)}" for role, name in named.items())
    return [f"guides={{{each}}}"] if each else []


def _changed(what: Config | Loading) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    if isinstance(what, Loading):
        return {name: value for name, value in vars(what).items() if value is not None}
    return what.model_dump(exclude_defaults=True)
