"""Calls of the library for pictures, each with its line of the shell and its lines of Python."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image

from lodestar.config import Config, Problem
from lodestar.files import reading
from lodestar.generators.editor import Editor
from lodestar.generators.edits import AnyEdit, Interpolate, Upsample, Vary
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.generators.unclip import UnClip
from lodestar.generators.unclip_edits import varied
from lodestar.web.shelf import Loading, Shelf

_SPELLED = {"origin": "from", "dtype": "precision"}
"""Options whose names are not those of Python."""


@dataclass(frozen=True)
class Call:
    """A call: a model's `sample`, or with an edit and files of pictures its `edit`."""

    model: str
    given: Mapping[str, Any]
    """Keywords, as Python and the command line both have them."""
    how: AnyEdit | None = None
    pictures: tuple[Path, ...] = ()
    """Pictures that are edited, in a folder with the mask and the reference picture."""
    files: Mapping[str, Path] = field(default_factory=dict)
    """The mask and the reference picture, by the names of their keywords."""
    guides: Mapping[str, str] = field(default_factory=dict)
    """Names of guides, by role."""
    title: str = ""
    """Difference from the other calls of its request."""

    @property
    def count(self) -> int:
        """Number of pictures that are made."""
        if isinstance(self.how, Interpolate):
            return self.how.points
        made_of = len(self.pictures) * max(1, len(self.given.get("label", ())), len(self.given.get("prompt", ())))
        return int(self.given["count"]) if self.how is None else int(self.given.get("count", made_of))

    def __call__(self, shelf: Shelf, callback: Callable[[Frame], None]) -> Samples:
        """Make the pictures. callback: called with each `Frame`. Raises Problem."""
        model: Any = shelf.generator(self.model)
        given: dict[str, Any] = {**self.given, **{name: str(path) for name, path in self.files.items()}, "callback": callback}
        if self.how is None:
            made: Samples = model.sample(**given, **self._guides(shelf))
            return made
        pictures = [read(path) for path in self.pictures]
        if isinstance(self.how, Vary):
            if not isinstance(model, UnClip):
                raise Problem(f"{self.model} is no bundle of a decoder and its CLIP, which variations need")
            return varied(model, pictures, eta=self.how.eta, **given)
        if not isinstance(model, Editor):
            raise Problem(f"{self.model} edits no pictures")
        return model.edit(self.how, pictures, **given, **self._guides(shelf))

    def _guides(self, shelf: Shelf) -> dict[str, Any]:
        return {"guides": {role: shelf.guide(name) for role, name in self.guides.items()}} if self.guides else {}

    def command(self, loading: Loading, out: str) -> str:
        """The line of the shell. out: the folder."""
        words = ["lodestar", *self._verb(), self.model, *(path.name for path in self.pictures)]
        settings = {} if self.how is None else _changed(self.how)
        told = {**settings, **self.given, **{name: path.name for name, path in self.files.items()}, **_changed(loading)}
        told["guide"] = [f"{role}={name}" for role, name in self.guides.items()]
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
        keywords = [f"{name}={value!r}" for name, value in given.items()]
        if self.guides:
            each = ", ".join(f"{role!r}: {_load(name, loading)}" for role, name in self.guides.items())
            keywords.append(f"guides={{{each}}}")
        lines, pictures = ["import lodestar"], [path.name for path in self.pictures]
        if isinstance(self.how, Vary):
            lines.append("from lodestar.generators.unclip_edits import varied")
            call = f"varied({', '.join(['model', repr(pictures), f'eta={self.how.eta}', *keywords])})"
        elif self.how is None:
            call = f"model.sample({', '.join(keywords)})"
        else:
            short = ", ".join(f"{name}={value!r}" for name, value in _changed(self.how).items())
            call = f"model.edit({', '.join([f'lodestar.edits.{type(self.how).__name__}({short})', repr(pictures), *keywords])})"
        return "\n".join(
            [*lines, "", f"model = {_load(self.model, loading)}", f"samples = {call}", f"lodestar.save(samples, {out!r})"]
        )


def read(path: Path) -> Image.Image:
    """A picture that a client has sent. Raises Problem where it cannot be decoded."""
    with reading(path.name, "cannot be decoded"), Image.open(path) as picture:
        picture.load()
        return picture


def _load(name: str, loading: Loading) -> str:
    keywords = "".join(f", {key}={value!r}" for key, value in _changed(loading).items())
    return f"lodestar.load({name!r}{keywords})"


def _changed(what: Config | Loading) -> dict[str, Any]:
    """The fields that are not at their defaults."""
    if isinstance(what, Loading):
        return {name: value for name, value in vars(what).items() if value is not None}
    return what.model_dump(exclude_defaults=True)
