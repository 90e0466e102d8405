"""Data at an address, such as ``s3://bucket/train-{000..255}.tar``, by fsspec: tars piece by piece, other files as copies.

Of a tar no copy is made: its list of files is read once and kept in the cache folder, and each file is read when it is asked for.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import IO, Any, cast

from lodestar.config import Problem
from lodestar.data.archive import TarRows
from lodestar.data.selection import expanded
from lodestar.data.tree import Listing
from lodestar.extras import need
from lodestar.files import atomic, cache_folder, read_json, reading, write_text

_BLOCK = 2**20
_HINT = " (pip install 'lodestar[remote]' for S3; other stores have their own package, see fsspec)"


def is_address(spec: str) -> bool:
    """True for ``protocol://path``."""
    return re.match(r"[a-z][a-z0-9+.-]*://", spec) is not None


def addresses(pattern: str) -> list[str]:
    """The files of a pattern: {0..9} counts, {a,b} lists, * and ? are any characters. Raises Problem where one is not there."""
    found: list[str] = []
    for url in expanded(pattern):
        store, path = store_of(url)
        with reading(url):
            some = [store.unstrip_protocol(each) for each in sorted(store.glob(path))] if re.search("[*?]", url) else [url]
            if not some or not store.exists(store._strip_protocol(some[0])):
                raise Problem(f"{pattern}: there is no file {url}")
        found += some
    return found


def copied(url: str) -> Path:
    """A copy of a file, which is made again where the file has changed. Raises Problem."""
    store, path = store_of(url)
    with reading(url):
        place = cache_folder() / "remote" / _key(store, path, url) / PurePosixPath(path).name
        if not place.exists():
            with store.open(path, "rb") as file, atomic(place) as copy:
                while block := file.read(_BLOCK):
                    copy.write(block)
    return place


class RemoteTarRows(TarRows):
    """A tar at an address, which is its spec; see ArchiveRows."""

    def _open(self) -> tuple[dict[str, str], Listing]:
        self._store, self._at = store_of(self._spec)
        self._key = _key(self._store, self._at, self._spec)
        kept = cache_folder() / "shards" / f"{self._key}.json"
        if kept.exists():
            told = read_json(kept)
            self._places = {name: (int(offset), int(size)) for name, (offset, size) in told["places"].items()}
            return told["names"], Listing(told["files"], told["folders"], told["strange"])
        with self._store.open(self._at, "rb") as file:
            if file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")):
                raise Problem(
                    f"{self._spec} is compressed, and is read in pieces: pictures are compressed already, pack a plain tar"
                )
            file.seek(0)
            names, listing = self._listed(cast(IO[bytes], file))
        self._archive.members.clear()  # type: ignore[attr-defined]
        if odd := [name for name in names.values() if name not in self._places]:
            raise Problem(f"{odd[0]} in {self._spec} is a link or has holes: pack plain files")
        index = {"names": names, "places": self._places, **vars(listing)}
        with contextlib.suppress(Problem):
            write_text(kept, json.dumps(index))
        return names, listing

    def _read(self, name: str) -> bytes:
        offset, size = self._places[name]
        data: bytes = self._store.cat_file(self._at, start=offset, end=offset + size)
        if len(data) < size:
            raise EOFError
        return data

    def fingerprint(self) -> str:
        return self._key


def store_of(url: str) -> tuple[Any, str]:
    """The store of an address, and the path in it. Raises Problem."""
    core = need("fsspec.core")
    with reading(url, "cannot be opened", _HINT):
        store, path = core.url_to_fs(url)
        return store, str(path)


def _key(store: Any, path: str, url: str) -> str:
    """SHA-256 of an address and of the file's version there, as the store tells it."""
    return hashlib.sha256(f"{url} {store.info(path).get('size')} {store.ukey(path)}".encode()).hexdigest()[:32]
