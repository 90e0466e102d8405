"""The one place where what a reader raises becomes a Problem that names what was read, and what may be opened at all."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

from lodestar.config import Problem, first_line


@contextlib.contextmanager
def reading(what: str, failure: str = "cannot be read", hint: str = "") -> Iterator[None]:
    """Turn whatever is raised in the block into the Problem "`what` `failure`: why", with `hint` behind it."""
    try:
        yield
    except (Problem, MemoryError):
        raise
    # Readers raise whatever a broken file makes them meet: OSError, SyntaxError, struct.error, zlib.error, KeyError, ...
    except Exception as error:
        raise Problem(f"{what} {failure}: {reason(error)}{hint}") from error


def reason(error: Exception) -> str:
    """Why something cannot be read, from what its reader raised."""
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a picture in a known format"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return first_line(error)


def regular(path: Path) -> Path:
    """The path, if a regular file is there. Raises ValueError for a pipe, a socket or a device: to open one can last for ever.

    Raises OSError where there is nothing.
    """
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("it is no regular file")
    return path
