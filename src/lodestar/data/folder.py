"""Pictures in a folder: one subfolder for each class, or all in the folder itself, without labels."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem

_ENDINGS = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_SPLITS = {"train", "training", "test", "val", "valid", "validation", "dev"}


class FolderRows:
    """The picture files of a folder, in the order of their names. Hidden files and folders are not looked at."""

    def __init__(self, folder: Path, spec: str):
        self._folder, self._spec = folder, spec
        classes = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
        here = sorted(name for name in os.listdir(folder) if _is_picture(name))
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

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self._files:
            stat = os.stat(self._folder / name)
            digest.update(f"{name}\0{stat.st_size}\0{stat.st_mtime_ns}\0".encode())
        return digest.hexdigest()


def _is_picture(name: str) -> bool:
    return name.lower().endswith(_ENDINGS) and not name.startswith(".")


def _pictures(folder: Path, name: str) -> Iterator[str]:
    """The pictures at any depth below ``folder/name``, sorted, as paths relative to `folder`."""
    for parent, folders, files in os.walk(folder / name):
        folders[:] = sorted(child for child in folders if not child.startswith("."))
        yield from (os.path.relpath(os.path.join(parent, file), folder) for file in sorted(files) if _is_picture(file))
