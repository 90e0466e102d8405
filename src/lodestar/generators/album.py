"""A folder of sampled pictures: numbered PNG files, a grid, and a manifest from which any of them can be made again alone."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import Discriminator, Field, Tag
from torch import Tensor

from lodestar import __version__
from lodestar.codecs import pixels
from lodestar.conditions import Ask
from lodestar.config import Config, Problem, decode
from lodestar.data.npz import write_npz
from lodestar.files import check_writable, is_temporary, read_json, remove, write_text
from lodestar.generators import first
from lodestar.generators.edits.request import EditRequest, Material
from lodestar.generators.guide import Guide, Reference, roles
from lodestar.generators.origin import Origin
from lodestar.generators.request import STAGES, Frame, Request, Settings
from lodestar.guidance import REFERENCE
from lodestar.images import load_png, save_grid, save_png
from lodestar.models.labels import spell
from lodestar.nets.precision import Precision

MANIFEST = "manifest.json"
"""File of the manifest; `lodestar.data.folder` knows it too."""
MASK = "mask.png"
"""Mask of inpainted pictures, beside them: filled in where white."""
_PARTS = "parts"
"""Folder of the pictures that are to be in one file, in an album."""
_HOLE = 128
"""Grey of the masked places in the grid."""
IN_GRID = 400
"""Maximum number of pictures in the grid, the first: it is for looking at, and is held in memory."""


_IN_GRID_VALUES = 2**29
"""Maximum number of values of the pictures in the grid."""


class Guided(Config):
    """A guide of the pictures."""

    name: str
    """Name or path, as given; empty if built in code."""
    digest: str


class Later(Config):
    """A further stage of a cascade."""

    model: str
    """Name or path, as given; empty if built in code."""
    model_digest: str
    dtype: Precision | None = None
    guides: Mapping[str, Guided] = {}
    """The guides of its guidance, by role."""


class Chosen(Config):
    """The choice of pictures among candidates."""

    by: Guided
    """Guide that chose."""
    candidates: str
    """SHA-256 of the candidates' request."""

    @classmethod
    def of(cls, by: Guide, asked: Request) -> Self:
        """The choice by a guide among the answers to a request."""
        digest = hashlib.sha256(asked.to_json().encode()).hexdigest()
        return cls(by=Guided(name=by.name, digest=by.digest), candidates=digest)


def _guides(origin: Origin, how: Settings) -> dict[str, Guided]:
    """The guides of the guidance in these settings."""
    asked = roles(how.guidance)
    return {role: Guided(name=guide.name, digest=guide.digest) for role, guide in origin.guides.items() if role in asked}


def _sort(request: Any) -> str:
    """Kind of a request, for its error messages."""
    return "EditRequest" if isinstance(request, EditRequest) or "edit" in request else "Request"


class Manifest(Config):
    """The contents of a folder of pictures."""

    lodestar: str
    """Version of this library."""
    model: str
    """Name or path, as given; empty if built in code."""
    model_digest: str
    dtype: Precision | None = None
    """Number format of the model's computation, which affects pixels; None if unknown."""
    guides: Mapping[str, Guided] = {}
    """The guides, by role."""
    later: tuple[Later, ...] = Field(default=(), max_length=STAGES)
    """Further stages of a cascade; `model` is its first."""
    chosen: Chosen | None = None
    """The choice of the pictures, where they are the best of several."""
    request: Annotated[Annotated[EditRequest, Tag("EditRequest")] | Annotated[Request, Tag("Request")], Discriminator(_sort)]

    @classmethod
    def of(cls, request: Request, origin: Origin, chosen: Chosen | None = None) -> Self:
        """The manifest of a request to a generator, with the guides of its guidance."""
        later = [
            Later(model=each.name, model_digest=each.digest, dtype=each.dtype, guides=_guides(each, how))
            for each, how in zip(origin.later, request.later, strict=True)
        ]
        return cls(
            lodestar=__version__,
            model=origin.name,
            model_digest=origin.digest,
            dtype=origin.dtype,
            guides=_guides(origin, request.settings),
            later=tuple(later),
            chosen=chosen,
            request=request,
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a manifest, from its path or folder. Raises Problem."""
        path = Path(path) / MANIFEST if os.path.isdir(path) else Path(path)
        whole = read_json(path)
        try:
            manifest = whole["manifest"]
            if "labels" in manifest["request"]:
                manifest = first.read(manifest)
            else:
                manifest["request"]["asks"] = [_ask(picture) for picture in whole["pictures"]]
        except (ValueError, KeyError, TypeError, AttributeError):
            raise Problem(f"{path} is not a manifest of pictures") from None
        return decode(cls, manifest, str(path))


def chosen_before(folder: Path, origin: Origin, chosen: Chosen) -> Manifest | None:
    """The manifest of a folder whose pictures an earlier command has chosen in this way, else None. Raises Problem."""
    there = Manifest.read(folder) if (folder / MANIFEST).exists() else None
    return there if there is not None and there == Manifest.of(there.request, origin, chosen) else None


class Album:
    """A folder of samples in progress."""

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        names: tuple[str, ...] | None,
        material: Material | None = None,
        reference: Guide | None = None,
        packed: bool = False,
    ) -> None:
        """Claim the folder. Raises Problem if it holds anything but these pictures. packed: one .npz of all at the end."""
        self.folder, self.manifest, self.material = Path(folder), manifest, material
        self.npz = self.folder / "samples.npz" if packed else None
        self.pictures = self.folder / _PARTS if packed else self.folder
        self.reference = reference if REFERENCE in manifest.guides else None
        path = self.folder / MANIFEST
        if path.exists():
            if Manifest.read(path) != manifest:
                raise Problem(f"{self.folder} holds pictures of another request: choose another --out")
        elif self.folder.exists() and (not self.folder.is_dir() or not all(map(is_temporary, self.folder.iterdir()))):
            raise Problem(f"{self.folder} exists and holds no pictures of this kind: choose another --out")
        for entry in filter(is_temporary, (*self.folder.glob("*"), *self.pictures.glob("*"))):
            entry.unlink(missing_ok=True)
        check_writable(path)
        self.names, self._begun = names, False

    def path(self, index: int) -> Path:
        """The file of a picture; in an album of one file, until that is written."""
        return self.pictures / f"{index:05d}.png"

    def missing(self) -> list[int]:
        """The numbers of the pictures that are still to be made: what a killed command left is kept."""
        if self.npz is not None and self.npz.exists():
            return []
        there = {path.name for path in self.pictures.glob("*.png")}
        return [k for k in range(len(self.manifest.request.asks)) if self.path(k).name not in there]

    def write(self, numbers: Sequence[int], images: Tensor) -> None:
        """Write pictures uint8 [N, C, H, W] of these numbers; before the first, the manifest and what it tells of."""
        if not self._begun:
            if not (self.folder / MANIFEST).exists():
                self._write_manifest()
            for path, picture in self._beside():
                if not path.exists():
                    save_png(path, picture)
            self._begun = True
        for number, image in zip(numbers, images, strict=True):
            save_png(self.path(number), image)

    def frames(self) -> Iterator[Frame]:
        """The pictures, which are all there, as final frames of one each."""
        for number in range(len(self.manifest.request.asks)):
            yield Frame(number, 1, 1, pixels.encode(load_png(self.path(number))[None]))

    def discard(self) -> None:
        """Remove the folder, the manifest last: a removal that is killed leaves an album, which goes on."""
        for entry in sorted(self.folder.iterdir(), key=lambda entry: entry.name == MANIFEST):
            remove(entry)
        remove(self.folder)

    def finish(self) -> Path:
        """Write the grid of the pictures, of the first where there are many, or the one file of all; returns its path."""
        if self.npz is not None:
            return self._pack(self.npz)
        path, first = self.folder / "grid.png", load_png(self.path(0))
        count = in_grid(len(self.manifest.request.asks), first.numel())
        made = torch.stack([first, *(load_png(self.path(k)) for k in range(1, count))])
        save_grid(path, *arranged(made, self.manifest.request, self.material))
        return path

    def _pack(self, path: Path) -> Path:
        """The one file of all pictures, with class numbers unless some labels are composed, in the place of a file for each."""
        if not path.exists():
            labels = [label if isinstance(label, int) else None for label in self.manifest.request.labels]
            with write_npz(path, labels) as write:
                for number in range(len(labels)):
                    write(load_png(self.path(number))[None])
        remove(self.pictures)
        return path

    def _beside(self) -> Iterator[tuple[Path, Tensor]]:
        """The sources and the mask of an edit, and the reference pictures, with their files."""
        if self.material is not None:
            yield from ((self.folder / _source(k), picture) for k, picture in enumerate(self.material.pictures))
            if self.material.mask is not None:
                yield self.folder / MASK, self.material.mask[None].to(torch.uint8) * 255
        if isinstance(self.reference, Reference):
            yield from ((self.folder / _reference(k), picture) for k, picture in enumerate(self.reference.pictures))

    def _write_manifest(self) -> None:
        """The manifest, whose pictures are the asks of its request, each with its file unless one file has all."""
        manifest = json.loads(self.manifest.to_json())
        pictures = [
            ({"file": self.path(k).name} if self.npz is None else {}) | _entry(ask, self.names or ())
            for k, ask in enumerate(self.manifest.request.asks)
        ]
        del manifest["request"]["asks"]
        if manifest["chosen"] is None:
            del manifest["chosen"]
        whole: dict[str, Any] = {"manifest": manifest, "pictures": pictures}
        if self.material is not None:
            whole["sources"] = [{"file": _source(k), "from": name} for k, name in enumerate(self.material.names)]
        write_text(self.folder / MANIFEST, json.dumps(whole, indent=1) + "\n")


def _entry(ask: Ask, names: tuple[str, ...]) -> dict[str, Any]:
    """An ask for a manifest, with a class by its name and, beside it, its number."""
    told = json.loads(ask.model_dump_json(exclude_defaults=True))
    number = told.pop("label", None)
    return {"label": spell(ask.label, names), "class": number, "seed": ask.seed, **told}


def _ask(picture: dict[str, Any]) -> dict[str, Any]:
    """An ask read from a manifest, the inverse of `_entry`."""
    told = {name: value for name, value in picture.items() if name not in ("file", "class", "label")}
    return told | {"label": picture["class"]}


def read_material(manifest: str | Path, request: EditRequest) -> Material:
    """The sources of an album's edited pictures, from beside its manifest. Raises Problem if unreadable."""
    folder = Path(manifest) if os.path.isdir(manifest) else Path(manifest).parent
    pictures = [load_png(folder / _source(k)) for k in range(len(request.pictures))]
    mask = None if request.mask is None else load_png(folder / MASK)[0] > 0
    return Material(torch.stack(pictures) if pictures else torch.empty((0, 0, 0, 0), dtype=torch.uint8), mask)


def read_reference(manifest: str | Path, known: Guided) -> Reference:
    """The reference pictures of an album, from beside its manifest. Raises Problem if unreadable, or other ones."""
    folder = Path(manifest) if os.path.isdir(manifest) else Path(manifest).parent
    paths = [folder / _reference(number) for number in range(len(list(folder.glob(_reference("*")))))]
    reference = Reference(torch.stack([load_png(path) for path in paths or [folder / _reference(0)]]), known.name)
    if reference.digest != known.digest:
        raise Problem(f"{folder / _reference(0)} is not the reference of these pictures: its values have changed since")
    return reference


def _reference(number: int | str) -> str:
    """File of a reference picture."""
    return f"reference-{number:0>5}.png"


def _source(number: int) -> str:
    """File of a source picture."""
    return f"source-{number:05d}.png"


def in_grid(count: int, values: int) -> int:
    """Number of the first pictures that a grid of so many shows; values: those of a picture."""
    return min(count, IN_GRID, max(1, _IN_GRID_VALUES // values))


def arranged(made: Tensor, request: Request, material: Material | None) -> tuple[Tensor, int | None]:
    """Results uint8 [N, C, H, W] as a grid has them, beside their sources where they have any, and the number of its columns."""
    if not isinstance(request, EditRequest) or material is None:
        return made, None
    if request.asks[0].source is None:  # a path from one end to the other
        return torch.cat([material.pictures[:1], made, material.pictures[1:]]), len(made) + len(material.pictures)
    sources = F.interpolate(material.pictures[request.sources[: len(made)]], made.shape[-2:])  # where it is enlarged
    columns = [sources, made] if material.mask is None else [sources, sources.masked_fill(material.mask, _HOLE), made]
    # As square as it gets in whole groups.
    groups = math.ceil(math.sqrt(len(made) / len(columns)))
    return torch.stack(columns, dim=1).flatten(0, 1), groups * len(columns)


def free_folder(parent: str | Path, name: str) -> Path:
    """The first of parent/name, parent/name-2, … that does not exist."""

    def candidates() -> Iterator[Path]:
        yield Path(parent) / name
        number = 2
        while True:
            yield Path(parent) / f"{name}-{number}"
            number += 1

    return next(path for path in candidates() if not path.exists())
