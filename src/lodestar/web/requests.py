"""Requests of clients: a configuration for each endpoint, whose fields are its parameters, and the calls that answer it."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

from PIL import Image
from pydantic import Field

from lodestar.config import Config, Problem, Seed, edit, nearest, parse, short
from lodestar.files import reading
from lodestar.generators.edits import AnyEdit, Edit, Inpaint, Interpolate, Upsample, Vary
from lodestar.generators.request import Settings
from lodestar.guidance import AnyGuidance, Guidance
from lodestar.web.calls import Blend, Call, ClipEdit, Edits, TextDiff

Line = Annotated[str, Field(max_length=4_000)]
Text = Annotated[str, Field(max_length=100_000)]
Several = Annotated[tuple[Line, ...], Field(max_length=1_000)]
Count = Annotated[int, Field(ge=1, le=100_000)]
MORE = tuple(name for name in Settings.model_fields if name not in ("steps", "sampler", "guidance"))
"""Settings of sampling without parameters of their own."""


class Limits(Config):
    """Limits of what clients may ask for."""

    pictures: int = Field(default=64, ge=1, le=100_000)
    """Pictures of a request."""
    steps: int = Field(default=1_000, ge=1, le=1_000_000)
    """Steps of a picture."""
    seconds: float = Field(default=300, gt=0, le=1_000_000)
    """Seconds of work for a request."""
    waiting: int = Field(default=64, ge=1, le=100_000)
    """Requests at work or waiting."""
    each: int = Field(default=4, ge=1, le=100_000)
    """Requests of one client at work or waiting."""
    megabytes: int = Field(default=16, ge=1, le=10_000)
    """Size of an uploaded file."""
    megapixels: float = Field(default=4, gt=0, le=1_000)
    """Pixels of an uploaded picture, in millions."""


class Order(Config):
    """A request for pictures: what all kinds of it have in common."""

    model: Line
    """Name of a model of the list."""
    label: Several = ()
    """Classes by name or number, in turn; dog+ship and "not cat" are composed ones."""
    prompt: Text = ""
    """Prompts, one a line, in turn."""
    sampler: Line = ""
    """Sampler in its short form, ddim:eta=0.5; empty is the model's own."""
    steps: Line = ""
    """Sampling plan, 20 or karras:20; empty is the model's own."""
    guidance: Text = ""
    """Guidance in its short forms, cfg:3, one a line, in the order of application."""
    guides: Text = ""
    """Models that guidance asks for, where these are not the model's own: ROLE=MODEL, one a line."""
    more: Line = ""
    """Further settings: temperature=0.9,reuse=2."""
    reference: Line | None = None
    """Picture that content, structure and style compare with."""
    seed: Seed = 0
    """Seed of the first picture; picture k has SEED + k. Edits that draw no noise have none."""
    count: Count | None = None
    """Number of pictures. Edits without noise make one, and an interpolation has points."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        """The calls that make the pictures. folder: a place for the uploaded files. Raises Problem."""
        raise NotImplementedError

    def call(self, folder: Path, limits: Limits, edits: Edits | None = None, **pictures: str | None) -> Call:
        """The call of this request; pictures: paths of uploaded files by name."""
        given: dict[str, Any] = {"label": list(self.label), "prompt": _lines(self.prompt)}
        given |= {"sampler": self.sampler.strip(), "steps": self.steps.strip(), "guidance": _lines(self.guidance)}
        given = {name: value for name, value in given.items() if value} | self._more()
        if self.count is not None:
            given["count"] = self.count
        if self.seed:
            given["seed"] = self.seed
        kept = {name: _kept(Path(path), folder / name, limits) for name, path in pictures.items() if path}
        files = {"mask": kept.pop("mask")} if "mask" in kept else {}
        if self.reference:
            files["reference"] = _kept(Path(self.reference), folder / "reference", limits)
        guides = dict(_guide(line) for line in _lines(self.guides))
        return Call(self.model, given, edits, tuple(kept.values()), files, guides)

    def _more(self) -> dict[str, Any]:
        """Further settings, without those at their defaults. Raises Problem."""
        parts = [part.strip() for part in self.more.split(",") if part.strip()]
        for part in parts:
            name = part.partition("=")[0]
            if name not in MORE:
                raise Problem(f"more: unknown setting {name!r}: choose from {', '.join(MORE)}{nearest(name, MORE)}")
        return edit(Settings(), parts).model_dump(exclude_defaults=True)


class SampleOrder(Order):
    """Pictures of a model, or of a cascade that begins with it."""

    count: Count | None = 8
    then: Text = ""
    """Upsamplers of a cascade, one a line, each with settings of its own: MODEL,steps=20,guidance=cfg:3."""

    def call(self, folder: Path, limits: Limits, edits: Edits | None = None, **pictures: str | None) -> Call:
        return replace(super().call(folder, limits, edits, **pictures), then=tuple(_lines(self.then)))

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        return [self.call(folder, limits)]


class ScalesOrder(SampleOrder):
    """Pictures of the same seeds under several scales of the first guidance."""

    scales: Line = "0,1,3,10"
    """Scales of the first guidance, CFG where none is given."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        first, *others = _lines(self.guidance) or ["cfg"]
        found = []
        for text in filter(None, map(str.strip, self.scales.split(","))):
            guidance = _scaled(first, text)
            whole = self.replace(guidance="\n".join([guidance, *others]))
            found.append(replace(whole.call(folder, limits), title=f"{first.partition(':')[0]} {text}"))
        if not found:
            raise Problem(f"scales is {self.scales!r}: numbers, such as 0,1,3,10")
        return found


class CompareOrder(SampleOrder):
    """Pictures of the same seeds by two models."""

    other: Line
    """Name of the other model of the list."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        return [replace(self.replace(model=name).call(folder, limits), title=name) for name in (self.model, self.other)]


class EditOrder(Order):
    """Pictures made of pictures."""

    how: Line = "sdedit"
    """Edit in its short form, sdedit:0.5, invert, interpolate:8, inpaint or reconstruct."""
    picture: Line | None = None
    """Picture to edit."""
    second: Line | None = None
    """Picture at the other end of an interpolation."""
    mask: Line | None = None
    """Mask of inpaint: white is filled in, black is kept."""
    origin: Several = ()
    """Classes that the pictures have, for inversion and interpolation."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        how: Edit = parse("edit", self.how, AnyEdit)
        if isinstance(how, Upsample | Vary):
            raise Problem(f"how is {self.how!r}: {how.kind} is a tab and an endpoint of its own")
        mask = self.mask if isinstance(how, Inpaint) else None
        second = self.second if isinstance(how, Interpolate) else None
        drawn = how.draws(bool(self.picture) + bool(second))
        whole = self if drawn and not isinstance(how, Interpolate) else self.replace(count=None)
        whole = whole if drawn else whole.replace(seed=0)
        call = whole.call(folder, limits, how, picture=self.picture, second=second, mask=mask)
        return [replace(call, given={**call.given, "origin": list(self.origin)}) if self.origin else call]


class UpsampleOrder(Order):
    """Pictures enlarged."""

    picture: Line | None = None
    """Picture to enlarge."""
    fit: bool = False
    """Bring the picture to the size of the model's input first."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        return [self.call(folder, limits, Upsample(fit=self.fit), picture=self.picture)]


class ClipOrder(Order):
    """Pictures made of pictures in a CLIP's space, by a bundle of a decoder and its CLIP."""

    picture: Line | None = None
    """Picture that is changed."""

    def clip_calls(self, folder: Path, limits: Limits, how: ClipEdit, **pictures: str | None) -> list[Call]:
        """The call of such an edit, which knows neither classes nor prompts. pictures: further ones, by name."""
        return [self.replace(label=(), prompt="").call(folder, limits, how, picture=self.picture, **pictures)]


class BlendOrder(ClipOrder):
    """Pictures on the way from one to another."""

    second: Line | None = None
    """Picture at the other end."""
    points: int = Field(default=8, ge=2, le=100_000)
    """Number of pictures, the two ends included."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        return self.replace(seed=0, count=None).clip_calls(folder, limits, Blend(points=self.points), second=self.second)


class TextDiffOrder(ClipOrder):
    """A picture changed by the difference of two texts."""

    origin: Line = ""
    """Text that tells the picture as it is."""
    to: Line = ""
    """Text that tells the result."""
    strength: float = Field(default=0.4, ge=0, le=1)
    """Part of the way: 0 is the picture, 1 the difference of the texts alone."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        how = TextDiff(origin=self.origin, to=self.to, strength=self.strength)
        return self.replace(seed=0, count=None).clip_calls(folder, limits, how)


class VaryOrder(ClipOrder):
    """Variations of a picture, by a bundle of a decoder and its CLIP."""

    count: Count | None = 8
    eta: float = Field(default=1.0, ge=0, le=1)
    """Noise on the way: 0 gives the picture back, 1 varies most."""

    def calls(self, folder: Path, limits: Limits) -> list[Call]:
        return (self if self.eta else self.replace(seed=0)).clip_calls(folder, limits, Vary(eta=self.eta))


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _guide(line: str) -> tuple[str, str]:
    role, separator, name = line.partition("=")
    if not (role and separator and name):
        raise Problem(f"guides: {line!r}: write it as ROLE=MODEL, such as classifier=cifar10_classifier")
    return role.strip(), name.strip()


def _scaled(text: str, scale: str) -> str:
    """A guidance at another scale, the field of this name or else its first. Raises Problem."""
    kind = text.partition(":")[0]
    plain: Guidance = parse("guidance", text if ":" in text else f"{kind}:{scale}", AnyGuidance)
    fields = [name for name in type(plain).model_fields if name != "kind"]
    if not fields:
        raise Problem(f"guidance {kind} has no scale")
    name = "scale" if "scale" in fields else fields[0]
    told = plain.model_dump(mode="json", exclude_defaults=True) | {name: scale}
    values = ",".join(f"{key}={value}" for key, value in told.items())
    return short(parse("guidance", f"{kind}:{values}", AnyGuidance))


def _kept(path: Path, place: Path, limits: Limits) -> Path:
    """An uploaded picture, copied under another name, with its size looked at first. Raises Problem."""
    with reading(place.name, "cannot be decoded"), Image.open(path) as picture:
        width, height = picture.size
        kind = (picture.format or "png").lower()
    if width * height > limits.megapixels * 1e6:
        raise Problem(f"{place.name} is {width}×{height} pixels: {limits.megapixels:g} million are the most")
    kept = place.with_suffix(f".{kind}")
    shutil.copyfile(path, kept)
    return kept
