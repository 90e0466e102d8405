"""Pictures in a folder: one subfolder for each class, all in the folder itself, without labels, or an album of samples."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.files import sha256

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SPLITS = {"train", "training", "test", "val", "valid", "validation", "dev"}


class FolderRows:
    """The picture files of a folder, in the order of their names. Hidden files and folders are not looked at.

    Of a folder that `lodestar sample` filled, those that its manifest lists, and no others: a grid of them is beside them.
    """

    def __init__(self, folder: Path, spec: str):
        self._folder = folder
        listed = _listed(folder)
        if listed is None:
            self._look(folder, spec)
            return
        self._files, labels = list(listed), list(listed.values())
        if missing := next((name for name in self._files if not (folder / name).exists()), None):
            raise Problem(f"{spec} is not finished: its manifest lists {missing}, which is not there")
        # Numbers come before names and in their own order; there may be pictures without a class.
        kinds = sorted(set(labels) - {None}, key=lambda label: (isinstance(label, str), label))
        by_class = None not in labels
        self.names = tuple(map(str, kinds)) if by_class else None
        self.labels = np.array([kinds.index(label) for label in labels]) if by_class else None

    def _look(self, folder: Path, spec: str) -> None:
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
        here = sorted(name for name in os.listdir(folder) if is_picture(name))
        below = [list(_pictures(folder, name)) for name in classes]
        if here and any(below):
            raise Problem(
                f"{spec} holds pictures ({here[0]}) beside folders of pictures ({classes[0]}): "
                "either every picture is in a folder named after its class, or none is"
            )
        if any(below) and _SPLITS.issuperset(name.lower() for name in classes):
            raise Problem(f"{spec} holds splits ({', '.join(classes)}), not classes: name one, such as {folder / classes[0]}")
        self._files = here or [file for files in below for file in files]
        tables = [name for name in os.listdir(folder) if name.endswith(".parquet")]
        if tables and not self._files:
            raise Problem(f"{spec} holds no pictures but tables: name one, such as {folder / min(tables)}")
        by_class = any(below)
        self.names = tuple(classes) if by_class else None
        self.labels = np.repeat(np.arange(len(classes)), [len(files) for files in below]) if by_class else None

    def __len__(self) -> int:
        return len(self._files)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return str(self._folder / self._files[index])

    def picture(self, index: int) -> Image.Image:
        return Image.open(self._folder / self._files[index])

    def encoded(self, index: int) -> bytes:
        return (self._folder / self._files[index]).read_bytes()

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self._files:
            path = self._folder / name
            try:
                digest.update(f"{name}\0{sha256(path)}\0".encode())
            except OSError as error:
                raise Problem(f"cannot read {path}: {error.strerror or error}") from error
        return digest.hexdigest()


def _listed(folder: Path) -> dict[str, int | str | None] | None:
    """The pictures that a manifest of ours lists, with their labels; None where there is no such manifest."""
    try:
        found = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
        assert "lodestar" in found["manifest"]
        return {str(picture["file"]): picture["label"] for picture in found["pictures"]}
    except (OSError, ValueError, KeyError, TypeError, AssertionError):
        return None


def is_picture(name: str) -> bool:
    """Whether a file's name is that of a picture, and not hidden."""
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def _pictures(folder: Path, name: str) -> Iterator[str]:
    """The pictures at any depth below ``folder/name``, sorted, as paths relative to `folder`."""
    for parent, folders, files in os.walk(folder / name):
        folders[:] = sorted(child for child in folders if not child.startswith("."))
        yield from (os.path.relpath(os.path.join(parent, file), folder) for file in sorted(files) if is_picture(file))
