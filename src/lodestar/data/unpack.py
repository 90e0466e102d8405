"""Archives, unpacked up to their stated sizes alone, and refused where a stated size is implausible.

A few bytes can claim, or unpack to, more than any machine holds; so sizes are checked before memory is allocated for them.
"""

from __future__ import annotations

import io
import os
import zipfile
from pathlib import Path
from typing import IO

LARGEST = 1 << 30
"""Bytes of the largest file, or array, that is read whole."""
_FREELY = 64 << 20
_TIGHTEST = 500
"""More than `_FREELY` bytes are never packed this tightly: pictures of thin lines on one colour reach a fifth of it."""


def check_unpacked(size: int, packed: int, largest: int | None = None) -> None:
    """Raise ValueError where `size` bytes, unpacked of `packed`, are more than data ever are, or more than `largest`."""
    if largest is not None and size > largest:
        raise ValueError(f"it has {size:,} bytes, and at most {largest:,} can be read")
    if size > max(_FREELY, _TIGHTEST * packed):
        raise ValueError(f"it has {size:,} bytes packed in {packed:,}, as no pictures are")


def open_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, largest: int | None = LARGEST) -> IO[bytes]:
    """A file of a zip archive that is open by its name. Raises ValueError for an impossible size, and the errors of zipfile."""
    packed = min(info.compress_size, _size(archive))
    check_unpacked(info.file_size, packed, largest)
    if info.compress_type == zipfile.ZIP_STORED and info.file_size > packed:
        raise EOFError
    return archive.open(info)


def read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """The contents of a file of a zip archive that is open by its name. Raises as `open_member` does."""
    info = archive.getinfo(name)
    with open_member(archive, info) as file:
        return file.read(info.file_size + 1)  # asked for without a number, all that there is would be unpacked


def copy_unpacked(packed: io.BufferedIOBase, plain: IO[bytes], size: int) -> None:
    """Write what is unpacked of a file of `size` bytes into another. Raises ValueError where it is more than data ever are."""
    done = 0
    while piece := packed.read(1 << 20):
        done += len(piece)
        check_unpacked(done, size)
        plain.write(piece)


def _size(archive: zipfile.ZipFile) -> int:
    assert archive.filename is not None
    return os.stat(Path(archive.filename)).st_size
