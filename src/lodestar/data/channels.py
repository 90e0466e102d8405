"""Stored channels of a data set's pictures: 1 if all are grey, 3 if any is in colour.

Arrays have a fixed number. Other data are searched in the pictures' first bytes until the first in colour; only if all are grey
is each looked at. If this means reading the whole file, the result is kept under the file's content.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from pathlib import Path

from lodestar.config import Problem
from lodestar.data.colour import in_colour
from lodestar.data.rows import Rows
from lodestar.files import cache_folder, write_text
from lodestar.progress import progress

_FIRST = 64
"""Number of pictures looked at before any kept result is asked for."""


def stored_channels(rows: Rows, spec: str) -> int:
    """1 or 3. Pictures that cannot be opened do not count. Raises Problem where the data cannot be read."""
    if rows.channels is not None:
        return rows.channels
    if _any_in_colour(rows, range(min(len(rows), _FIRST))):
        return 3
    if len(rows) <= _FIRST:
        return 1
    kept = _kept(rows.fingerprint()) if rows.packed else None
    with contextlib.suppress(OSError, ValueError):
        if kept is not None and (found := int(kept.read_text())) in (1, 3):
            return found
    with progress(f"looking for colour in {spec}", len(rows)) as done:

        def told() -> Iterable[int]:
            for index in range(_FIRST, len(rows)):
                if index % 256 == 0:
                    done(index)
                yield index

        found = 3 if _any_in_colour(rows, told()) else 1
    if kept is not None:
        with contextlib.suppress(Problem):  # nothing is lost by it but time
            write_text(kept, str(found))
    return found


def _kept(fingerprint: str) -> Path:
    return cache_folder() / "channels" / hashlib.sha256(fingerprint.encode()).hexdigest()


def _any_in_colour(rows: Rows, indices: Iterable[int]) -> bool:
    for index in indices:
        # Why a picture cannot be opened is told when it is decoded.
        with contextlib.suppress(Exception):
            if in_colour(rows.picture(index)):
                return True
    return False
