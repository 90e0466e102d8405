"""Pictures in a zip or tar archive, read as the folder that would be unpacked of it."""

from __future__ import annotations

import io
import posixpath
import shutil
import stat
import tarfile
import tempfile
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from lodestar.data.columns import Asked
from lodestar.data.tree import Listing, read_tree
from lodestar.files import reading, sha256

TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
"""The endings of tar archives."""


class ArchiveRows(ABC):
    """The picture files of an archive, as `lodestar.data.tree` reads them."""

    channels = None
    packed = True

    def __init__(self, path: Path, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        self._path, self._spec = path, spec
        with reading(spec):
            self._names, listing = self._open()
        ending = max((end for end in (".zip", *TARS) if path.name.lower().endswith(end)), key=len, default="")
        stem = path.name[: len(path.name) - len(ending)]

        def read(name: str) -> bytes:
            with reading(f"{name} in {spec}"):
                return self._read(self._names[name])

        tree = read_tree(listing, read, spec, asked.labels is not False, archive=stem)
        self._files, self.names, self.labels = tree.files, tree.names, tree.labels

    @abstractmethod
    def _open(self) -> tuple[dict[str, str], Listing]:
        """The archive's own names of its files by their paths, of files of the same path the last; and all that there is."""

    @abstractmethod
    def _read(self, name: str) -> bytes:
        """The contents of a file by the archive's name of it. Raises any exception."""

    def __len__(self) -> int:
        return len(self._files)

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"{self._files[index]} in {self._spec}"

    def picture(self, index: int) -> Image.Image:
        return Image.open(io.BytesIO(self.encoded(index)))

    def encoded(self, index: int) -> bytes:
        return self._read(self._names[self._files[index]])

    def fingerprint(self) -> str:
        return sha256(self._path)


class ZipRows(ArchiveRows):
    """See ArchiveRows."""

    def _open(self) -> tuple[dict[str, str], Listing]:
        self._archive = zipfile.ZipFile(self._path)
        names: dict[str, str] = {}
        listing = Listing()
        for info in self._archive.infolist():
            path = _clean(info.filename if "/" in info.filename else info.filename.replace("\\", "/"))
            mode = info.external_attr >> 16
            if info.is_dir():
                listing.folders.append(path)
            elif stat.S_IFMT(mode) not in (0, stat.S_IFREG):
                listing.strange.append(path)
            else:
                names[path] = info.filename
        listing.files = list(names)
        return names, listing

    def _read(self, name: str) -> bytes:
        return self._archive.read(name)


class TarRows(ArchiveRows):
    """The picture files of a tar archive. A compressed archive is unpacked into a temporary file without a name, for random
    access."""

    def _open(self) -> tuple[dict[str, str], Listing]:
        self._lock = threading.Lock()
        self._archive = tarfile.open(fileobj=_plain(self._path), mode="r:")  # noqa: SIM115 (open as long as the rows are)
        names: dict[str, str] = {}
        listing = Listing()
        for member in self._archive.getmembers():
            path = _clean(member.name)
            if member.isdir():
                listing.folders.append(path)
            elif member.isreg() or member.islnk():
                names[path] = member.name
            else:
                listing.strange.append(path)
        listing.files = list(names)
        return names, listing

    def _read(self, name: str) -> bytes:
        with self._lock:
            file = self._archive.extractfile(name)
            assert file is not None, name
            return file.read()


def _plain(path: Path) -> IO[bytes]:
    """A tar's file, uncompressed."""
    import bz2
    import gzip
    import lzma

    file = open(path, "rb")  # noqa: SIM115 (open as long as the rows are)
    begins = file.read(6)
    file.seek(0)
    for magic, unpack in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if begins.startswith(magic):
            plain = tempfile.TemporaryFile()  # noqa: SIM115 (likewise)
            with file, unpack(file) as packed:
                shutil.copyfileobj(packed, plain, 2**20)
            plain.seek(0)
            return plain
    return file


def _clean(name: str) -> str:
    """A path as it would be unpacked: relative, without "." and ".."."""
    return posixpath.normpath("/" + name).lstrip("/")
