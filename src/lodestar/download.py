"""Published files, fetched once into the cache folder and checked."""

from __future__ import annotations

import hashlib
import http.client
import urllib.error
import urllib.parse
import urllib.request
from pathlib import Path

from lodestar import files
from lodestar.config import Problem
from lodestar.files import atomic, cache_folder
from lodestar.progress import progress

_BLOCK = 2**20
_PATIENCE_SECONDS = 30


def place(url: str) -> Path:
    """Path of the file at `url` in the cache folder's ``downloads``, present or not."""
    return cache_folder() / "downloads" / urllib.parse.unquote(url.rpartition("/")[2])


def fetch(url: str, sha256: str | None) -> Path:
    """The file at `url`, with these contents, in the cache folder's ``downloads``; fetched if missing.

    sha256: None if unpublished; an existing file is then taken as valid. Raises Problem for other contents, and without a
    network, naming the place for the file.
    """
    path = place(url)
    if path.exists() and sha256 is None:
        return path
    if path.exists():
        if files.sha256(path) == sha256:
            return path
        raise Problem(f"{path} is damaged, or another file: its SHA-256 is not {sha256}; remove it")
    try:
        with urllib.request.urlopen(url, timeout=_PATIENCE_SECONDS) as answer:
            return _save(answer, url, sha256, path)
    except (OSError, http.client.HTTPException) as error:  # URLError and its kin are OSErrors
        raise Problem(f"cannot fetch {url} ({_reason(error)}): put the file at {path}") from None


def _save(answer: http.client.HTTPResponse, url: str, sha256: str | None, path: Path) -> Path:
    digest, size, done = hashlib.sha256(), int(answer.headers.get("Content-Length") or 0), 0
    with atomic(path) as file, progress(f"fetching {path.name} (MiB)", size // _BLOCK) as report:
        while block := answer.read(_BLOCK):
            file.write(block)
            digest.update(block)
            done += len(block)
            report(done // _BLOCK)
        if done < size:
            raise Problem(f"{url} ended after {done:,} of {size:,} bytes: try again")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise Problem(f"{url} gave another file: its SHA-256 is {digest.hexdigest()}, not {sha256}")
    return path


def _reason(error: Exception) -> str:
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    return str(getattr(reason, "strerror", None) or reason or type(error).__name__)
