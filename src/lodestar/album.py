"""A folder of sampled pictures: numbered PNG files, a grid, and a manifest from which any of them can be made again alone."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from lodestar import checkpoint, library
from lodestar.config import Config, Problem, decode
from lodestar.files import write_text
from lodestar.images import enlarge, grid, load_png, save_png
from lodestar.models.classifier import PictureClassifier
from lodestar.models.diffusion import Diffusion, Frame, Request

MANIFEST = "manifest.json"
SMALL = 128
"""Grids of pictures smaller than this are enlarged by a whole factor, so that they can be looked at."""


class Manifest(Config):
    """What the pictures of a folder are."""

    lodestar: str
    """Version of this library."""
    model: str
    """Name or path, as given."""
    model_digest: str
    classifier: str | None = None
    """The classifier that guided, as given."""
    classifier_digest: str | None = None
    request: Request

    @classmethod
    def of(cls, model: str, request: Request, classifier: str | None) -> Self:
        """The manifest of a request to a model. Raises Problem if there is no such model."""
        import lodestar

        guided = any(guidance.kind == "classifier" for guidance in request.guidance)
        classifier = classifier if guided else None
        return cls(
            lodestar=lodestar.__version__,
            model=model,
            model_digest=_digest(model),
            classifier=classifier,
            classifier_digest=None if classifier is None else _digest(classifier),
            request=request,
        )

    @classmethod
    def read(cls, path: str | Path) -> Self:
        """Read a manifest, given it or its folder. Raises Problem."""
        path = Path(path) / MANIFEST if Path(path).is_dir() else Path(path)
        try:
            return decode(cls, json.dumps(json.loads(path.read_text(encoding="utf-8"))["manifest"]), str(path))
        except OSError as error:
            raise Problem(f"cannot read {path}: {error.strerror or error}") from None
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, Problem):
                raise
            raise Problem(f"{path} is not a manifest of pictures") from None

    def load(self, device: str | None = None) -> tuple[Diffusion, PictureClassifier | None]:
        """The model and the classifier that the pictures come from. Raises Problem if they are not the same any more."""
        for name, digest in ((self.model, self.model_digest), (self.classifier, self.classifier_digest)):
            if name is not None and _digest(name) != digest:
                raise Problem(f"{name} is not the model that made these pictures: its weights have changed since")
        model = library.load(self.model, device, "diffusion")
        classifier = None if self.classifier is None else library.load(self.classifier, device, "classifier")
        assert isinstance(model, Diffusion)
        assert classifier is None or isinstance(classifier, PictureClassifier)
        return model, classifier


class Album:
    """A folder being filled."""

    def __init__(self, folder: str | Path, manifest: Manifest, names: tuple[str, ...] | None) -> None:
        """Claim the folder. Raises Problem if it holds anything but these pictures."""
        self.folder, self.manifest = Path(folder), manifest
        path = self.folder / MANIFEST
        if path.exists():
            if Manifest.read(path) != manifest:
                raise Problem(f"{self.folder} holds pictures of another request: choose another --out")
        elif self.folder.exists() and (not self.folder.is_dir() or any(self.folder.iterdir())):
            raise Problem(f"{self.folder} exists and holds no pictures of this kind: choose another --out")
        self.names = names

    def path(self, index: int) -> Path:
        """The file of a picture."""
        return self.folder / f"{index:05d}.png"

    def add(self, frame: Frame) -> None:
        """Write the pictures of a final frame; before the first of them, the manifest."""
        if not (self.folder / MANIFEST).exists():
            self._write_manifest()
        for offset, image in enumerate(frame.images):
            save_png(self.path(frame.first + offset), image)

    def finish(self) -> Path:
        """Write the grid of all pictures and return its path."""
        count = len(self.manifest.request.labels)
        return save_grid(self.folder / "grid.png", torch.stack([load_png(self.path(k)) for k in range(count)]))

    def _write_manifest(self) -> None:
        request, names = self.manifest.request, self.names
        pictures: list[dict[str, Any]] = [
            {"file": self.path(k).name, "label": label if names is None or label is None else names[label], "seed": seed}
            for k, (label, seed) in enumerate(zip(request.labels, request.seeds, strict=True))
        ]
        text = json.dumps({"manifest": json.loads(self.manifest.to_json()), "pictures": pictures}, indent=1)
        write_text(self.folder / MANIFEST, text + "\n")


def save_grid(path: Path, images: Tensor, columns: int | None = None) -> Path:
    """Write uint8 pictures [N, C, H, W] as one, enlarged where they are small; returns the path."""
    factor = max(SMALL // images.shape[-1], 1)
    save_png(path, grid(enlarge(images, factor), columns, gap=factor))
    return path


def free_folder(parent: str | Path, name: str) -> Path:
    """The first of parent/name, parent/name-2, … that does not exist."""

    def candidates() -> Iterator[Path]:
        yield Path(parent) / name
        number = 2
        while True:
            yield Path(parent) / f"{name}-{number}"
            number += 1

    return next(path for path in candidates() if not path.exists())


def _digest(name: str) -> str:
    return checkpoint.peek(library.find(name)).digest
