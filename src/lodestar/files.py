"""Files written whole or not at all: under a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import csv
import hashlib
import io
import os
import shutil
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any, Protocol

from lodestar.config import Problem, first_line, from_json

CACHE = "LODESTAR_CACHE"
"""The environment variable that names the cache folder."""


def cache_folder() -> Path:
    """Folder of reproducible files: ``$LODESTAR_CACHE``, or ``lodestar`` in ``$XDG_CACHE_HOME`` or ``~/.cache``."""
    if os.environ.get(CACHE):
        return Path(os.environ[CACHE]).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "lodestar"


class Store(Protocol):
    """The store of a working folder: it has a copy of each of its files."""

    url: str

    def __call__(self, path: Path) -> None:
        """Put a file that has appeared, or changed; remove what has gone. Raises Problem."""


STORES: dict[Path, Store] = {}
"""The stores of results at addresses, by working folder (`lodestar.results`)."""


def changed(path: Path) -> None:
    """Tell the store, if it is of a working folder, of a file that has appeared, changed or gone. Raises Problem."""
    for folder, store in STORES.items():
        if path.is_relative_to(folder):
            store(path)


def spelled(text: object) -> str:
    """A text, or a path, with addresses in the place of their working folders."""
    told = str(text)
    for folder, store in STORES.items():
        told = told.replace(str(folder), store.url)
    return told


def remove(path: Path) -> None:
    """Remove a file, or a folder with all that it holds, also from a store."""
    shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    changed(path)


@contextlib.contextmanager
def atomic(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a file that appears under `path` only when the block ends without an error; until then the old one stays.

    Raises Problem when the disk is full, the folder cannot be written to, or `path` is an address; the temporary file is removed.
    """
    path = _local(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with _folder(path.parent):
            try:
                with open(temporary, mode, encoding=None if "b" in mode else "utf-8") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
            finally:
                # Whatever else is wrong with the place is said anyway.
                with contextlib.suppress(OSError):
                    temporary.unlink()
    except OSError as error:
        raise Problem(f"cannot write {path}: {error.strerror or error}") from error
    changed(path)


def _local(path: str | Path) -> Path:
    """The path, if it is no address, of which a path would be a folder here. Raises Problem."""
    protocol, _, rest = str(path).partition(":/")
    if len(protocol) > 1 and protocol.isalnum() and rest:
        raise Problem(f"cannot write {protocol}://{rest.lstrip('/')}: an address is for the commands that write a folder (--out)")
    return Path(path)


class _WritableError(Exception):
    """Ends the writing of a file that was only tried."""


def check_writable(path: str | Path) -> None:
    """Raise Problem where `atomic` could not write a file, before the work whose result it is to hold. It leaves nothing."""
    if os.path.isdir(path):
        raise Problem(f"cannot write {path}: it is a folder")
    with contextlib.suppress(_WritableError), atomic(path):
        raise _WritableError


@contextlib.contextmanager
def reading(what: str | Path, failure: str = "cannot be read", hint: str = "") -> Iterator[None]:
    """Turn errors in reading into the Problem "`what` `failure`: why", with `hint` at its end.

    The block only reads, or interprets its input: libraries raise any exception for a damaged file, so every one counts as
    damage, except for `Problem`, which says more, and a lack of memory.
    """
    try:
        yield
    except (Problem, MemoryError):
        raise
    except Exception as error:
        raise Problem(f"{what} {failure}: {_reason(error)}{hint}") from error


def _reason(error: Exception) -> str:
    from PIL import UnidentifiedImageError

    if isinstance(error, UnidentifiedImageError):
        return "it is not a picture in a known format"
    if isinstance(error, EOFError):
        return "it is cut short"
    return error.strerror if isinstance(error, OSError) and error.strerror else first_line(error)


def regular(path: Path) -> Path:
    """The path, if it is a regular file: opening a pipe, a socket or a device can last for ever. Raises OSError."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        raise OSError("it is a folder" if stat.S_ISDIR(mode) else "it is no regular file")
    return path


def read_json(path: str | Path) -> Any:
    """The JSON in a file. Raises Problem naming the file."""
    with reading(path):
        return from_json(regular(Path(path)).read_text(encoding="utf-8"))


def is_temporary(path: Path) -> bool:
    """True for an unfinished file of `atomic`, left behind by a killed process."""
    return path.name.startswith(".") and path.name.endswith(".tmp")


def sha256(path: str | Path) -> str:
    """SHA-256 of a file's contents, in hexadecimal. Raises Problem naming the file."""
    with reading(path), open(regular(Path(path)), "rb") as file:
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


def read_csv(path: Path) -> list[dict[str, str]]:
    """The lines of a table, by column; call it inside `reading`, whose Problem tells what is wrong with the file."""
    with open(regular(path), encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, strict=True))


@contextlib.contextmanager
def lock(path: str | Path, taken: str) -> Iterator[None]:
    """Hold a lock while the block, or the process, lasts.

    The lock's file stays, unless the block ends with an error and the file, or the folder, is new: refused work leaves nothing
    behind. Raises Problem: `taken` if another process has the lock, another if the file, or a folder for it, cannot be made.
    """
    import fcntl

    path = Path(path)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(_folder(path.parent))
            if there := path.exists():
                regular(path)
            file = stack.enter_context(open(path, "w", encoding="utf-8"))
        except OSError as error:
            raise Problem(f"cannot write {path}: {error.strerror or error}") from error
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Who had it before may have been refused, and have removed the file since it was opened here.
            if not os.path.samestat(os.fstat(file.fileno()), path.stat()):
                raise BlockingIOError
        except (BlockingIOError, FileNotFoundError):
            raise Problem(taken) from None
        try:
            yield
        except BaseException:
            if not there and os.listdir(path.parent) == [path.name]:
                path.unlink()
            raise


@contextlib.contextmanager
def _folder(folder: Path) -> Iterator[None]:
    """Make a folder, and those above it; where the block ends with an error, those that were made and are empty go again."""
    made = [each for each in (folder, *folder.parents) if not each.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield
    except BaseException:
        with contextlib.suppress(OSError):
            for each in made:
                each.rmdir()
        raise
