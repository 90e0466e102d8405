"""Pictures in a zip or tar archive, read as the folder that would be unpacked of it."""

from __future__ import annotations

import io
import os
import posixpath
import stat
import tarfile
import tempfile
import threading
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from lodestar.data.columns import Asked
from lodestar.data.tree import Listing, read_tree
from lodestar.data.unpack import LARGEST, check_unpacked, copy_unpacked, read_member
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

        tree = read_tree(listing, read, spec, asked, archive=stem)
        self._files, self.names, self.labels, self.texts = tree.files, tree.names, tree.labels, tree.reader()

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
        return read_member(self._archive, name)


class TarRows(ArchiveRows):
    """See ArchiveRows. A compressed tar is unpacked into a temporary file without a name, for reading at random.

    Of a file, its place in the tar is kept, and no more: a set of many tars has millions. Nor does a tar stay open.
    """

    def _open(self) -> tuple[dict[str, str], Listing]:
        self._lock = threading.Lock()
        self._file: _Bounded | None = (file := _plain(self._path))
        names, listing = self._listed(file)
        if all(name in self._places for name in names.values()):
            self._archive.members.clear()  # type: ignore[attr-defined]
            if str(file.name) == str(self._path):  # it was not packed
                file.close()
                self._file = None
        return names, listing

    def _listed(self, file: IO[bytes]) -> tuple[dict[str, str], Listing]:
        """See `_open`."""
        self._places: dict[str, tuple[int, int]] = {}
        """Offset and size of the contents by the tar's own name, of files whose contents are in one piece."""
        self._archive = tarfile.open(fileobj=file, mode="r:")  # noqa: SIM115 (open as long as the rows are)
        names: dict[str, str] = {}
        listing = Listing()
        for member in _forward(self._archive, file):
            path = _clean(member.name)
            if member.isdir():
                listing.folders.append(path)
            elif member.isreg() or member.islnk():
                names[path] = member.name
                self._places.pop(member.name, None)
                if member.isreg() and not member.issparse():
                    self._places[member.name] = member.offset_data, member.size
            else:
                listing.strange.append(path)
        listing.files = list(names)
        return names, listing

    def _read(self, name: str) -> bytes:
        with self._lock:
            if name in self._places:
                offset, size = self._places[name]
                check_unpacked(size, self._path.stat().st_size, LARGEST)
                with open(self._path, "rb") if self._file is None else nullcontext(self._file) as file:
                    file.seek(offset)
                    return file.read(size)
            member = self._archive.extractfile(name)
            if member is None:
                raise ValueError("it is a link to what is no file")
            with member:
                # What is sparse may claim any size.
                check_unpacked(member.seek(0, os.SEEK_END), self._path.stat().st_size, LARGEST)
                member.seek(0)
                return member.read()


def _forward(archive: tarfile.TarFile, file: IO[bytes]) -> Iterator[tarfile.TarInfo]:
    """The members of a tar, each behind the one before, to its end. Raises any exception.

    tarfile would go back where a size is negative, and so never end; and takes what is no header of a member for the end.
    """
    reached, end = 0, file.seek(0, os.SEEK_END)
    for member in archive:
        if member.isreg() and not member.issparse() and member.offset_data + member.size > end:
            raise EOFError
        if member.size < 0 or member.offset_data < reached:
            raise ValueError(f"{member.name} has {member.size} bytes")
        reached = member.offset_data
        yield member
    file.seek(archive.offset)
    if file.read(tarfile.BLOCKSIZE).strip(b"\0"):
        raise ValueError(f"what follows after {len(archive.getmembers()):,} files in it is damaged")


class _Bounded(io.BufferedReader):
    """A file of which no more is read at once than it has: memory is given for as much as is asked for."""

    def read(self, size: int | None = -1) -> bytes:
        most = os.fstat(self.fileno()).st_size
        return super().read(most if size is None or size < 0 else min(size, most))


def _plain(path: Path) -> _Bounded:
    """A tar's file, uncompressed."""
    import bz2
    import gzip
    import lzma

    file = _Bounded(open(path, "rb", buffering=0))  # noqa: SIM115 (open as long as the rows are)
    begins = file.read(6)
    file.seek(0)
    for magic, unpack in ((b"\x1f\x8b", gzip.open), (b"BZh", bz2.open), (b"\xfd7zXZ\0", lzma.open)):
        if begins.startswith(magic):
            plain = tempfile.TemporaryFile()  # noqa: SIM115 (likewise)
            with file, unpack(file) as packed:
                copy_unpacked(packed, plain, path.stat().st_size)
            plain.seek(0)
            return _Bounded(plain.detach())
    return file


def _clean(name: str) -> str:
    """A path as it would be unpacked: relative, without "." and ".."."""
    return posixpath.normpath("/" + name).lstrip("/")
