"""Pictures in a folder: one subfolder for each class, all in the folder itself, without labels, or an album of samples."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem
from lodestar.data.columns import Asked
from lodestar.data.tree import Listing, read_tree, visible
from lodestar.files import reading, regular, sha256


class FolderRows:
    """The picture files of a folder, as `lodestar.data.tree` reads them. Pipes, sockets and devices are never opened."""

    channels = None
    packed = False

    def __init__(self, folder: Path, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        self._folder = folder
        with reading(spec):
            listing = _listing(folder)
        tree = read_tree(listing, self._read, spec, asked)
        self._files, self.names, self.labels, self.texts = tree.files, tree.names, tree.labels, tree.reader()
        tables = [name for name in listing.files if name.endswith(".parquet") and "/" not in name]
        if tables and not self._files:
            raise Problem(f"{spec} holds no pictures but tables: name one, such as {folder / min(tables)}")

    def __len__(self) -> int:
        return len(self._files)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return str(self._folder / self._files[index])

    def picture(self, index: int) -> Image.Image:
        return Image.open(regular(self._folder / self._files[index]))

    def encoded(self, index: int) -> bytes:
        return self._read(self._files[index])

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for name in self._files:
            path = self._folder / name
            digest.update(os.fsencode(name) + f"\0{sha256(path)}\0".encode())
        return digest.hexdigest()

    def _read(self, name: str) -> bytes:
        path = self._folder / name
        with reading(path):
            return regular(path).read_bytes()


def _listing(root: Path) -> Listing:
    """Contents of a folder, at any depth. Links are followed, but into no folder that they are in themselves."""
    found = Listing()

    def look(folder: str, prefix: str, above: frozenset[tuple[int, int]]) -> None:
        status = os.stat(folder)
        place = (status.st_dev, status.st_ino)
        if place in above:
            return
        with os.scandir(folder) as entries:
            for entry in sorted(entries, key=lambda entry: entry.name):
                path = prefix + entry.name
                if not visible(entry.name):
                    continue
                if _is_dir(entry):
                    found.folders.append(path)
                    look(entry.path, f"{path}/", above | {place})
                elif _is_strange(entry):
                    found.strange.append(path)
                else:
                    found.files.append(path)

    look(str(root), "", frozenset())
    return found


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_strange(entry: os.DirEntry[str]) -> bool:
    """True for an entry that is no regular file. A broken link is taken for a file, and named when it cannot be read."""
    try:
        return not entry.is_file() and os.path.exists(entry.path)
    except OSError:
        return False
