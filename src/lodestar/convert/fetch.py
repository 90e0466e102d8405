"""Published files from where they are published, once, into the cache."""

from __future__ import annotations

import hashlib
import http.client
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

from lodestar.config import Problem
from lodestar.convert.published import Published
from lodestar.files import atomic

_PIECE = 1 << 20
_PATIENCE = 60
"""Seconds to wait for a server that says nothing."""

Told = Callable[[float], None]
"""Called with the share of the bytes that are here, in [0, 1]."""


def fetch(published: Published, folder: Path, told: Told = lambda share: None) -> Path:
    """The file of a published model, from the folder or into it. Raises Problem if it cannot be fetched, or is another one."""
    path = folder / published.file
    if path.is_file():
        return path
    if published.url is None:
        raise Problem(
            f"{published.name} cannot be fetched by a program: get {published.file} from {published.page}, and convert it"
        )
    digest = hashlib.sha256()
    with atomic(path) as file:
        for piece in _pieces(published.url, told):
            file.write(piece)
            digest.update(piece)
        check_hash(published, digest.hexdigest(), published.url)
    return path


def _pieces(url: str, told: Told) -> Iterator[bytes]:
    """The bytes behind an address. Raises Problem if they cannot be had, or not all of them."""
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE) as answer:
            size, here = int(answer.headers.get("Content-Length") or 0), 0
            while piece := answer.read(_PIECE):
                yield piece
                here += len(piece)
                told(here / max(size, here))
    except (OSError, http.client.HTTPException) as error:
        raise Problem(f"cannot fetch {url}: {getattr(error, 'reason', None) or error or type(error).__name__}") from None
    if here < size:
        raise Problem(f"cannot fetch {url}: the connection ended after {here:,} of {size:,} bytes")


def check_hash(published: Published, sha256: str, what: object) -> None:
    """Raise Problem if the SHA-256 of a published file is known, and another."""
    if published.sha256 not in (None, sha256):
        raise Problem(f"{what} is not {published.name}: its SHA-256 is {sha256}, the published one {published.sha256}")
