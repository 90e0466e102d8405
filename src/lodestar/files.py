"""Files that are either whole or not there: written under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO

from lodestar.config import Problem

CACHE = "LODESTAR_CACHE"
"""The environment variable that names the cache folder."""


def cache_folder() -> Path:
    """For what can be made or fetched again: ``$LODESTAR_CACHE``, or ``lodestar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lodestar"


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO]:
    """Open a file that appears under `path` only when the block ends without an error; until then the old one stays.

    Raises Problem when the disk is full or the folder cannot be written to; the temporary file is removed.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror or error}") from error
    finally:
        # Whatever else is wrong with the place has been said already.
        with contextlib.suppress(OSError):
            temporary.unlink()


def is_temporary(path: Path) -> bool:
    """Whether this is a file that `atomic` had not finished; one stays behind where the process was killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_text(path: str | Path, text: str) -> None:
    """Write a text file atomically."""
    with atomic(path, "w") as file:
        file.write(text)


def write_csv(path: str | Path, rows: Sequence[Mapping[str, object]]) -> None:
    """Write rows, one at least, as a table with the columns of the first, atomically; None is an empty cell."""
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(path, text.getvalue())


@contextlib.contextmanager
def lock(path: str | Path, taken: str) -> Iterator[None]:
    """Hold a lock for as long as the block lasts, or the process lives; its file stays.

    Raises Problem: `taken` if another process has it, another if the file, or a folder for it, cannot be made.
    """
    import fcntl

    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8")  # noqa: SIM115 (it is closed below)
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror or error}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Problem(taken) from None
        yield
