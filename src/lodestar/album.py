"""A folder of sampled pictures: numbered PNG files, a grid, and a manifest from which any of them can be made again alone."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from lodestar import __version__, library
from lodestar.config import Config, Problem, decode
from lodestar.data.npz import write_npz
from lodestar.files import is_temporary, read_json, write_text
from lodestar.images import load_png, save_grid, save_png
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Samples
from lodestar.models.editing import Edited, EditRequest, Material
from lodestar.models.labels import spell
from lodestar.models.request import Frame, Request
from lodestar.nets.precision import PRECISIONS

MANIFEST = "manifest.json"
"""The manifest's file; `lodestar.data.folder` knows it too."""
MASK = "mask.png"
"""Beside inpainted pictures: what was filled in, white."""
_HOLE = 128
"""What the grid shows there: grey."""
IN_GRID = 400
"""The grid shows so many pictures at most, the first: it is for looking at, and is held in memory."""


class Manifest(Config):
    """What the pictures of a folder are."""

    lodestar: str
    """Version of this library."""
    model: str
    """Name or path, as given; empty if it was built in code."""
    model_digest: str
    dtype: Literal["float32", "bfloat16"] | None = None
    """The number format that the model computed in, which tells on pictures; None if that was not written down."""
    classifier: str | None = None
    """The classifier that guided, as given."""
    classifier_digest: str | None = None
    weak: str | None = None
    """The weaker model that autoguidance led away from, as given."""
    weak_digest: str | None = None
    request: EditRequest | Request

    @classmethod
    def of(
        cls, request: Request, model: Diffusion, classifier: PictureClassifier | None = None, weak: Diffusion | None = None
    ) -> Self:
        """The manifest of a request to a model. The classifier and the weaker model are written down only where they guide."""
        kinds = {guidance.kind for guidance in request.guidance}
        guide, worse = classifier if "classifier" in kinds else None, weak if "autoguidance" in kinds else None
        return cls(
            lodestar=__version__,
            model=model.name,
            model_digest=model.digest,
            dtype="bfloat16" if model.denoiser.dtype == torch.bfloat16 else "float32",
            classifier=None if guide is None else guide.name,
            classifier_digest=None if guide is None else guide.digest,
            weak=None if worse is None else worse.name,
            weak_digest=None if worse is None else worse.digest,
            request=request,
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a manifest, given it or its folder. Raises Problem."""
        path = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
        found = read_json(path)
        if not isinstance(found, dict) or "manifest" not in found:
            raise Problem(f"{path} is not a manifest of pictures")
        return decode(cls, found["manifest"], str(path))

    def load(self, device: str | None = None) -> tuple[Diffusion, PictureClassifier | None, Diffusion | None]:
        """The model of the pictures, and the classifier and the weaker model that guided it.

        Raises Problem if they are not the same any more.
        """
        dtype = None if self.dtype is None else PRECISIONS[self.dtype]
        given = ((self.model, "diffusion"), (self.classifier, "classifier"), (self.weak, "weaker"))
        for kind in (kind for name, kind in given if name == ""):
            raise Problem(
                f"the {kind} model of these pictures was built in code, and not loaded by a name that could be loaded again"
            )
        model = library.load_diffusion(self.model, device, dtype)
        classifier = None if self.classifier is None else library.load_classifier(self.classifier, device, dtype)
        weak = None if self.weak is None else library.load_diffusion(self.weak, device, dtype)
        digests = ((model, self.model_digest), (classifier, self.classifier_digest), (weak, self.weak_digest))
        for name in (loaded.name for loaded, digest in digests if loaded is not None and loaded.digest != digest):
            raise Problem(f"{name} is not the model that made these pictures: its weights have changed since")
        return model, classifier, weak


class Album:
    """A folder being filled."""

    def __init__(
        self, folder: str | Path, manifest: Manifest, names: tuple[str, ...] | None, material: Material | None = None
    ) -> None:
        """Claim the folder. Raises Problem if it holds anything but these pictures."""
        self.folder, self.manifest, self.material = Path(folder), manifest, material
        path = self.folder / MANIFEST
        if path.exists():
            if Manifest.read(path) != manifest:
                raise Problem(f"{self.folder} holds pictures of another request: choose another --out")
        elif self.folder.exists() and (not self.folder.is_dir() or not all(map(is_temporary, self.folder.iterdir()))):
            raise Problem(f"{self.folder} exists and holds no pictures of this kind: choose another --out")
        for entry in filter(is_temporary, self.folder.glob("*")):
            entry.unlink(missing_ok=True)
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
        """Write pictures uint8 [N, C, H, W], numbered from `first`; before the first, the manifest and what they are made of."""
        if not (self.folder / MANIFEST).exists():
            self._write_manifest()
        if self.material is not None and first == 0:
            _write_material(self.folder, self.material)
        for index, image in enumerate(images, start=first):
            save_png(self.path(index), image)

    @contextmanager
    def npz(self) -> Iterator[Callable[[Frame], None]]:
        """Write one file of all pictures, `npz_path`, beside a manifest: call what is yielded as `add`, frame by frame.

        It has numbers for labels, and none where some are composed.
        """
        self._write_manifest(listed=False)
        labels = [label if isinstance(label, int) else None for label in self.manifest.request.labels]
        with write_npz(self.npz_path, labels) as write:
            yield lambda frame: write(frame.images)

    def finish(self) -> Path:
        """Write the grid of the pictures, of the first where there are many, and return its path."""
        path, count = self.folder / "grid.png", min(len(self.manifest.request.labels), IN_GRID)
        made, columns = torch.stack([load_png(self.path(k)) for k in range(count)]), None
        if isinstance(self.manifest.request, EditRequest) and self.material is not None:
            made, columns = _beside(made, self.manifest.request, self.material)
        save_grid(path, made, columns)
        return path

    def _write_manifest(self, listed: bool = True) -> None:
        request, names = self.manifest.request, self.names
        pictures: list[dict[str, Any]] = [
            {"file": self.path(k).name, "label": spell(label, names), "seed": seed}
            for k, (label, seed) in enumerate(zip(request.labels, request.seeds, strict=True))
            if listed
        ]
        whole: dict[str, Any] = {"manifest": json.loads(self.manifest.to_json()), "pictures": pictures}
        if isinstance(request, EditRequest):
            for picture, source in zip(pictures, request.sources, strict=False):
                picture["source"] = _source(source)
            for picture, weight in zip(pictures, request.weights, strict=False):
                picture["weight"] = weight
        if self.material is not None:
            whole["sources"] = [{"file": _source(k), "from": name} for k, name in enumerate(self.material.names)]
        write_text(self.folder / MANIFEST, json.dumps(whole, indent=1) + "\n")


def read_material(manifest: str | Path, request: EditRequest) -> Material:
    """What the pictures of an album are made of, from beside its manifest. Raises Problem if it cannot be read."""
    folder = Path(manifest) if Path(manifest).is_dir() else Path(manifest).parent
    pictures = [load_png(folder / _source(k)) for k in range(len(request.pictures))]
    mask = None if request.mask is None else load_png(folder / MASK)[0] > 0
    return Material(torch.stack(pictures) if pictures else torch.empty(0, dtype=torch.uint8), mask)


def _write_material(folder: Path, material: Material) -> None:
    for number, picture in enumerate(material.pictures):
        save_png(folder / _source(number), picture)
    if material.mask is not None:
        save_png(folder / MASK, material.mask[None].to(torch.uint8) * 255)


def _source(number: int) -> str:
    """The file of a picture that others are made of."""
    return f"source-{number:05d}.png"


def _beside(made: Tensor, request: EditRequest, material: Material) -> tuple[Tensor, int]:
    """Results uint8 [N, C, H, W] beside what they are made of, and in how many columns to show them."""
    if not request.sources:  # a path from one end to the other
        return torch.cat([material.pictures[:1], made, material.pictures[1:]]), len(made) + len(material.pictures)
    sources = F.interpolate(material.pictures[list(request.sources[: len(made)])], made.shape[-2:])  # where it is enlarged
    columns = [sources, made] if material.mask is None else [sources, sources.masked_fill(material.mask, _HOLE), made]
    # As square as it gets in whole groups.
    groups = math.ceil(math.sqrt(len(made) / len(columns)))
    return torch.stack(columns, dim=1).flatten(0, 1), groups * len(columns)


def save(samples: Samples, folder: str | Path) -> Path:
    """Write samples as numbered PNG files, a grid and a manifest; returns the folder.

    Raises Problem if the folder holds anything but these pictures.
    """
    names, _ = samples.model.classes(samples.classifier)
    material = samples.material if isinstance(samples, Edited) else None
    manifest = Manifest.of(samples.request, samples.model, samples.classifier, samples.weak)
    album = Album(folder, manifest, names, material)
    album.write(0, samples.images)
    album.finish()
    return album.folder


def free_folder(parent: str | Path, name: str) -> Path:
    """The first of parent/name, parent/name-2, … that does not exist."""

    def candidates() -> Iterator[Path]:
        yield Path(parent) / name
        number = 2
        while True:
            yield Path(parent) / f"{name}-{number}"
            number += 1

    return next(path for path in candidates() if not path.exists())
