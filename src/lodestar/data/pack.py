"""Shards: tars of pictures with their classes and captions, as webdataset and `lodestar.data` read them."""

from __future__ import annotations

import hashlib
import io
import json
import re
import tarfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from lodestar.config import Problem, shown
from lodestar.data.batch import Row
from lodestar.data.captions import CAPTION
from lodestar.data.source import Source
from lodestar.data.tree import visible
from lodestar.files import atomic, check_writable, reading
from lodestar.progress import progress

_FIELD = re.compile(r"\{(:0?\d{0,2}d)?\}")
_DIGITS = 8
"""Digits of a picture's number in its file's name."""
_CONTENT = "LODESTAR.content"
"""Name of the header that holds a digest of the shard's content."""


def pack(source: Source, out: str, pictures: int) -> list[Path]:
    """Write the pictures of a source into shards of so many, named by a pattern such as ``train-{:05d}.tar``; returns the shards.

    A picture is a PNG file in the folder of its class, if any, with its captions in a JSON file beside it. Each shard is whole or
    absent, and those that are there already stay. Raises Problem, also where a shard holds anything else.
    """
    if not out.endswith(".tar") or len(_FIELD.findall(out)) != 1 or len(re.findall("[{}]", out)) != 2:
        raise Problem(f"--out {out}: give the shards' names with one field for their number, such as 'shards/train-{{:05d}}.tar'")
    for name in source.names or ():
        if not name or "/" in name or not visible(name):
            raise Problem(f"class {shown(name)} cannot be the name of a folder in a shard")
    content = hashlib.sha256(f"{source.fingerprint} {source.captioned} {pictures}".encode()).hexdigest()
    starts = range(0, len(source), pictures)
    shards = [Path(out.format(number)) for number in range(len(starts))]
    todo = [number for number, path in enumerate(shards) if not _there(path, content)]
    for number in todo[:1]:
        check_writable(shards[number])
    with progress(f"shards of {source.spec}", len(source)) as done:
        for number in todo:
            rows = range(len(source))[starts[number] : starts[number] + pictures]
            with atomic(shards[number]) as file, tarfile.open(fileobj=file, mode="w", pax_headers={_CONTENT: content}) as tar:
                for index in rows:
                    for name, data in _files(source, index):
                        member = tarfile.TarInfo(name)
                        member.size = len(data)
                        tar.addfile(member, io.BytesIO(data))
                    done(index + 1)
    return shards


def _there(path: Path, content: str) -> bool:
    """True if a shard with this content exists. Raises Problem for another file."""
    if not path.exists():
        return False
    with reading(path), tarfile.open(path, mode="r:") as tar:
        if tar.pax_headers.get(_CONTENT) != content:
            raise Problem(f"{path} holds other pictures: choose another --out")
    return True


def _files(source: Source, index: int) -> Iterator[tuple[str, bytes]]:
    """The files of a picture, by name; none for a picture that is left out."""
    row = source.row(index)
    if row is None:
        return
    folder = "" if source.names is None else f"{source.names[row['label']]}/"
    stem = f"{folder}{index:0{_DIGITS}d}"
    yield f"{stem}.png", _png(row)
    if CAPTION in row:
        yield f"{stem}.json", json.dumps({CAPTION: row[CAPTION]}, ensure_ascii=False).encode()


def _png(row: Row) -> bytes:
    """A PNG file of a row's picture uint8 [C, H, W]."""
    picture: np.ndarray = row["image"]
    buffer = io.BytesIO()
    Image.fromarray(picture[0] if len(picture) == 1 else np.moveaxis(picture, 0, -1)).save(buffer, format="PNG")
    return buffer.getvalue()
