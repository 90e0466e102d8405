"""Batches of samples as the reference scripts keep them (guided-diffusion, ``scripts/image_sample.py``): NumPy's .npz files.

``arr_0`` holds the pictures, uint8 [N, H, W, C], ``arr_1`` their class numbers, int64 [N], where they have classes. A file of
50,000 pictures of 256 × 256 has 10 GB: it is mapped into memory, not read, and written as pictures come.
"""

from __future__ import annotations

import contextlib
import math
import struct
import threading
import zipfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image
from torch import Tensor

from lodestar.config import Problem
from lodestar.data.captions import Reader
from lodestar.data.classes import numbered
from lodestar.data.columns import Asked, Labels, if_asked
from lodestar.data.transforms import to_png
from lodestar.data.unpack import LARGEST, check_unpacked, open_member
from lodestar.files import atomic, reading, sha256

PICTURES, LABELS = "arr_0", "arr_1"
_LOCAL_HEADER = struct.Struct("<26x2H")
"""Header of a file in a zip archive: lengths of its name, and of the extra field between name and contents."""
_LONGEST_HEADER = 1_024
"""Characters of an array's header at most; usual are about a tenth, and some thousands can exhaust the parser."""


class NpzRows:
    """The pictures of an .npz file. Of a compressed one they are read in their order, and not at random."""

    packed = False
    texts: Reader | None = None

    def __init__(self, path: Path, spec: str, asked: Asked = Asked()):  # noqa: B008 (it is frozen)
        self._path, self._spec, self._lock = path, spec, threading.Lock()
        self._archive = open_npz(path)
        held = names(self._archive)
        if PICTURES not in held:
            raise Problem(
                f"{spec} holds no {PICTURES}, the pictures, uint8 [N, H, W, C]: it holds {', '.join(held) or 'nothing'}"
            )
        with _reading(spec, PICTURES):
            self._file, self._shape, dtype = _header(self._archive, PICTURES, spec)
            if dtype != np.uint8 or len(self._shape) != 4 or self._shape[3] not in (1, 3) or 0 in self._shape[1:]:
                raise Problem(
                    f"{spec}: {PICTURES} is {dtype} {list(self._shape)}, and pictures are uint8 [N, H, W, 3] or [N, H, W, 1]"
                )
            check_unpacked(math.prod(self._shape[1:]), path.stat().st_size, LARGEST)
            self._start = self._file.tell()
            self._mapped = self._map(self._archive.getinfo(f"{PICTURES}.npy"))
        self.channels = self._shape[3]
        self.names, self.labels = if_asked(asked, self._labels) if LABELS in held else (None, None)

    def __len__(self) -> int:
        return self._shape[0]

    def windows(self, rng: np.random.Generator) -> Iterable[np.ndarray]:
        if self._mapped is None:
            raise Problem(
                f"{self._spec} is compressed, so its pictures cannot be read at random: write it again with numpy.savez"
            )
        yield np.arange(len(self))

    def where(self, index: int) -> str:
        return f"picture {index} of {self._spec}"

    def picture(self, index: int) -> Image.Image:
        picture = self._mapped[index] if self._mapped is not None else self._unpacked(index)
        return Image.fromarray(picture[:, :, 0] if self._shape[3] == 1 else picture)

    def encoded(self, index: int) -> bytes:
        return to_png(self.picture(index))

    def fingerprint(self) -> str:
        return sha256(self._path)

    def _map(self, info: zipfile.ZipInfo) -> np.ndarray | None:
        """The pictures, mapped into memory; None where they are compressed, or there are none. Raises any exception."""
        if info.compress_type != zipfile.ZIP_STORED or not len(self):
            return None
        return np.memmap(self._path, np.uint8, "r", _contents(self._path, info) + self._start, self._shape)

    def _labels(self) -> Labels:
        labels = array(self._archive, LABELS, self._spec)
        if labels.shape != self._shape[:1] or labels.dtype.kind not in "iu":
            raise Problem(f"{self._spec}: {LABELS} is {labels.dtype} {list(labels.shape)}, and labels are int64 [N]")
        if (labels == -1).all():
            return None, None  # withheld, as in a table
        if (labels < 0).any():
            raise Problem(f"{self._spec}: {LABELS} holds {labels.min()}, and labels are class numbers, from 0")
        return numbered(labels.tolist())

    def _unpacked(self, index: int) -> np.ndarray:
        shape = self._shape[1:]
        size = int(np.prod(shape))
        with self._lock:
            self._file.seek(self._start + index * size)
            data = self._file.read(size)
        if len(data) < size:
            raise EOFError
        return np.frombuffer(data, np.uint8).reshape(shape)


def open_npz(path: Path) -> zipfile.ZipFile:
    """An .npz file, which is a zip archive of arrays. Raises Problem."""
    with reading(path, "is no .npz file, or it is cut short"):
        return zipfile.ZipFile(path)


def names(archive: zipfile.ZipFile) -> list[str]:
    """The names of the arrays."""
    return [name.removesuffix(".npy") for name in archive.namelist() if name.endswith(".npy")]


def array(archive: zipfile.ZipFile, name: str, spec: str) -> np.ndarray:
    """One array, read. Raises Problem for a damaged array, or for Python objects, which are not unpickled."""
    with _reading(spec, name), _header(archive, name, spec, LARGEST)[0] as file:
        file.seek(0)
        read: np.ndarray = np.lib.format.read_array(file, allow_pickle=False, max_header_size=_LONGEST_HEADER)
        return read


@contextlib.contextmanager
def write_npz(path: Path, labels: Sequence[int | None]) -> Iterator[Callable[[Tensor], None]]:
    """Write a file that appears when the block ends: call what is yielded with batches of pictures uint8 [B, C, H, W].

    They are as many as labels, and are written as they come; ``arr_1`` only if every one has a label. Raises Problem.
    """
    with atomic(path) as file, zipfile.ZipFile(file, "w") as archive:
        written = 0
        with archive.open(f"{PICTURES}.npy", "w", force_zip64=True) as into:

            def add(batch: Tensor) -> None:
                nonlocal written
                if not written:
                    _, channels, height, width = batch.shape
                    _write_header(into, "|u1", (len(labels), height, width, channels))
                into.write(batch.permute(0, 2, 3, 1).numpy().tobytes())
                written += len(batch)

            yield add
        assert written == len(labels), f"{written} pictures, {len(labels)} labels"
        numbers = [label for label in labels if label is not None]
        if len(numbers) == len(labels):
            with archive.open(f"{LABELS}.npy", "w") as into:
                _write_header(into, "<i8", (len(numbers),))
                into.write(np.array(numbers, "<i8").tobytes())


def _reading(spec: str, name: str) -> contextlib.AbstractContextManager[None]:
    return reading(f"{spec}: {name}", "is damaged")


def _header(
    archive: zipfile.ZipFile, name: str, spec: str, largest: int | None = None
) -> tuple[IO[bytes], tuple[int, ...], np.dtype]:
    """An array's file, at its contents, its shape and its type, which are as large as the file is. Raises any exception."""
    info = archive.getinfo(f"{name}.npy")
    file = open_member(archive, info, largest)
    version = np.lib.format.read_magic(file)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
    if read is None:
        raise ValueError(f"format {version[0]}.{version[1]} is not known")
    shape, fortran, dtype = read(file, max_header_size=_LONGEST_HEADER)
    if dtype.hasobject:
        raise Problem(f"{spec}: {name} holds Python objects, and reading them could run code: only plain arrays are read")
    if fortran and name == PICTURES:
        raise Problem(f"{spec}: {name} is in Fortran's order: write it again with numpy.ascontiguousarray")
    expected = file.tell() + math.prod(shape) * dtype.itemsize
    if min(shape, default=0) < 0 or info.file_size != expected:
        raise ValueError(f"it has {info.file_size:,} bytes, and {dtype} {list(shape)} are {expected:,}")
    return file, shape, dtype


def _contents(path: Path, info: zipfile.ZipInfo) -> int:
    """Offset of the contents of an archive's file."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        lengths: tuple[int, int] = _LOCAL_HEADER.unpack(file.read(30))
        return info.header_offset + 30 + sum(lengths)


def _write_header(file: IO[bytes], descr: str, shape: tuple[int, ...]) -> None:
    np.lib.format.write_array_header_1_0(file, {"descr": descr, "fortran_order": False, "shape": shape})
