"""A folder of sampled pictures: numbered PNG files, a grid, and a manifest from which any of them can be made again alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Self

import torch
import torch.nn.functional as F
from pydantic import Discriminator, Field, Tag
from torch import Tensor

from lodestar import __version__
from lodestar.conditions import Ask
from lodestar.config import Config, Problem, decode
from lodestar.data.npz import write_npz
from lodestar.files import check_writable, is_temporary, read_json, write_text
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
    request: Annotated[Annotated[EditRequest, Tag("EditRequest")] | Annotated[Request, Tag("Request")], Discriminator(_sort)]

    @classmethod
    def of(cls, request: Request, origin: Origin) -> Self:
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
            request=request,
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a manifest, from its path or folder. Raises Problem."""
        path = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
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


class Album:
    """A folder of samples in progress."""

    def __init__(
        self,
        folder: str | Path,
        manifest: Manifest,
        names: tuple[str, ...] | None,
        material: Material | None = None,
        reference: Guide | None = None,
    ) -> None:
        """Claim the folder. Raises Problem if it holds anything but these pictures."""
        self.folder, self.manifest, self.material = Path(folder), manifest, material
        self.reference = reference if REFERENCE in manifest.guides else None
        path = self.folder / MANIFEST
        if path.exists():
            if Manifest.read(path) != manifest:
                raise Problem(f"{self.folder} holds pictures of another request: choose another --out")
        elif self.folder.exists() and (not self.folder.is_dir() or not all(map(is_temporary, self.folder.iterdir()))):
            raise Problem(f"{self.folder} exists and holds no pictures of this kind: choose another --out")
        for entry in filter(is_temporary, self.folder.glob("*")):
            entry.unlink(missing_ok=True)
        check_writable(path)
        self.names = names

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.folder / f"{index:05d}.png"

    @property
    def npz_path(self) -> Path:
        """The file of all pictures."""
        return self.folder / "samples.npz"

    def add(self, frame: Frame) -> None:
        """Write the pictures of a final frame."""
        self.write(frame.first, frame.images)

    def write(self, first: int, images: Tensor) -> None:
        """Write pictures uint8 [N, C, H, W], numbered from `first`; before the first, the manifest and the sources of an edit."""
        if not (self.folder / MANIFEST).exists():
            self._write_manifest()
        if self.material is not None and first == 0:
            _write_material(self.folder, self.material)
        for index, image in enumerate(images, start=first):
            save_png(self.path(index), image)

    @contextmanager
    def npz(self) -> Iterator[Callable[[Frame], None]]:
        """Write one file of all pictures, `npz_path`, beside a manifest: call the yielded function as `add`, frame by frame.

        The file has class numbers, unless some labels are composed.
        """
        self._write_manifest(listed=False)
        labels = [label if isinstance(label, int) else None for label in self.manifest.request.labels]
        with write_npz(self.npz_path, labels) as write:
            yield lambda frame: write(frame.images)

    def finish(self) -> Path:
        """Write the grid of the pictures, of the first where there are many, and return its path."""
        path, first = self.folder / "grid.png", load_png(self.path(0))
        count = in_grid(len(self.manifest.request.asks), first.numel())
        made = torch.stack([first, *(load_png(self.path(k)) for k in range(1, count))])
        save_grid(path, *arranged(made, self.manifest.request, self.material))
        return path

    def _write_manifest(self, listed: bool = True) -> None:
        """The reference pictures and the manifest, whose pictures are the asks of its request; listed: each with its file."""
        manifest = json.loads(self.manifest.to_json())
        pictures = [
            ({"file": self.path(k).name} if listed else {}) | _entry(ask, self.names or ())
            for k, ask in enumerate(self.manifest.request.asks)
        ]
        del manifest["request"]["asks"]
        whole: dict[str, Any] = {"manifest": manifest, "pictures": pictures}
        if self.material is not None:
            whole["sources"] = [{"file": _source(k), "from": name} for k, name in enumerate(self.material.names)]
        if isinstance(self.reference, Reference):
            for number, picture in enumerate(self.reference.pictures):
                save_png(self.folder / _reference(number), picture)
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
    folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
    pictures = [load_png(folder / _source(k)) for k in range(len(request.pictures))]
    mask = None if request.mask is None else load_png(folder / MASK)[0] > 0
    return Material(torch.stack(pictures) if pictures else torch.empty((0, 0, 0, 0), dtype=torch.uint8), mask)


def read_reference(manifest: str | Path, known: Guided) -> Reference:
    """The reference pictures of an album, from beside its manifest. Raises Problem if unreadable, or other ones."""
    folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
    paths = [folder / _reference(number) for number in range(len(list(folder.glob(_reference("*")))))]
    reference = Reference(torch.stack([load_png(path) for path in paths or [folder / _reference(0)]]), known.name)
    if reference.digest != known.digest:
        raise Problem(f"{folder / _reference(0)} is not the reference of these pictures: its values have changed since")
    return reference


def _write_material(folder: Path, material: Material) -> None:
    for number, picture in enumerate(material.pictures):
        save_png(folder / _source(number), picture)
    if material.mask is not None:
        save_png(folder / MASK, material.mask[None].to(torch.uint8) * 255)


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
