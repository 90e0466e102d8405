"""A run's folder: whose it is, and to whom it is refused."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from lodestar import checkpoint
from lodestar.config import Problem, decode
from lodestar.files import is_temporary, regular, remove, write_text
from lodestar.models.first import upgraded
from lodestar.tasks import TrainClip, TrainDenoiser
from lodestar.training.names import BOARD, LOCK, LOG, RUN, STATE
from lodestar.training.run import Run

CHANGEABLE = {
    "train.images", "train.shard", "train.log_every", "train.save_every", "train.preview_every", "train.keep",
    "train.save_behind", "data.workers", "data.validation",
}  # fmt: skip
"""Settings that may change when a run is gone on with: its length, and what has no part in the weights."""


def run_in(folder: Path) -> Run | None:
    """The run of a folder; None where there is none. Raises Problem."""
    path = folder / RUN
    if not path.exists():
        return None
    try:
        return decode(Run, upgraded(regular(path).read_text(encoding="utf-8")))
    except (Problem, OSError, UnicodeDecodeError):
        raise Problem(f"{path} cannot be read as a run of this version: choose another --out, or move it away") from None


def check_folder(folder: Path, run: Run) -> None:
    """Raise Problem if the folder holds another run, or something that is no run."""
    there = run_in(folder)
    if there is not None:
        difference = _difference(there, run)
        if difference is not None:
            raise Problem(f"{folder} holds another run ({difference}): choose another --out, or give the same settings")
    elif folder.exists() and (not folder.is_dir() or not all(map(_is_ours, folder.iterdir()))):
        raise Problem(f"{folder} exists and holds no run: choose another --out")


def check_shares(run: Run, processes: int) -> None:
    """Raise Problem if so many processes cannot share the batches of a run, or its task learns nothing from them."""
    if run.train.batch_size < processes:
        raise Problem(f"batch size {run.train.batch_size} for {processes} processes: each needs a picture, at least {processes}")
    if run.train.batch_size == 1 and isinstance(run.task, TrainClip):
        raise Problem("batch size 1: a CLIP learns which of a batch's captions is a picture's, so give at least 2")
    if processes > 1 and isinstance(run.task, TrainDenoiser) and run.task.pairing != "independent":
        raise Problem(f"task.pairing is {run.task.pairing!r}, of the whole batch: give one process, or 'independent'")


def claim(folder: Path, run: Run) -> None:
    """Make the folder this run's. To be called by who holds its lock: files that others had not finished are removed."""
    check_folder(folder, run)  # again, since who held the lock before may have begun a run
    for entry in filter(is_temporary, folder.rglob("*.tmp")):
        entry.unlink()
    write_text(folder / RUN, run.to_json())


@contextlib.contextmanager
def nothing_left(folder: Path) -> Iterator[None]:
    """A context for training: an error in the block removes the run's new files, unless it has logged or saved anything.

    Older files stay, and so do files left by a kill, and files of others that came meanwhile.
    """
    before, told = set(_made(folder)), (_written(folder), _length(folder / LOG))
    try:
        yield
    except Exception:
        if (_written(folder), _length(folder / LOG)) == told:
            for path in set(_made(folder)) - before:
                remove(path)
            with contextlib.suppress(OSError):  # it is not there, or not empty
                (folder / BOARD).rmdir()
        raise


def _made(folder: Path) -> Iterator[Path]:
    """The files of a run up to its first checkpoint."""
    for pattern in (RUN, LOG, f"{BOARD}/events.*", "*.safetensors"):
        yield from folder.glob(pattern)


def _length(path: Path) -> int:
    """Bytes of a file; 0 where there is none."""
    return path.stat().st_size if path.exists() else 0


def _written(folder: Path) -> int | None:
    """When the checkpoint was written, in nanoseconds; None where there is none."""
    path = folder / STATE
    return path.stat().st_mtime_ns if path.exists() else None


def last_good(folder: Path) -> str:
    """Advice on resuming a run that cannot go on, from its last good checkpoint."""
    path = folder / STATE
    if not path.exists():
        return "there is no checkpoint yet"
    return f"the last good state, of image {checkpoint.peek(path).provenance['images_seen']:,}, is {path}"


def _is_ours(entry: Path) -> bool:
    """True for entries of a run's folder before anything is written: the lock, and temporary files."""
    return entry.name == LOCK or is_temporary(entry)


def leaves(run: Run) -> Iterator[tuple[str, object]]:
    """The settings of a run by path, but those that may change."""

    def within(value: object, path: str) -> Iterator[tuple[str, object]]:
        if isinstance(value, dict):
            for name, inner in value.items():
                yield from within(inner, f"{path}.{name}" if path else name)
        elif path not in CHANGEABLE:
            yield path, value

    return within(run.model_dump(mode="json"), "")


def _difference(a: Run, b: Run) -> str | None:
    """The first setting in which two runs differ, as text; None where they are the same run."""
    old, new = (dict(leaves(run)) for run in (a, b))
    for path in old | new:
        if old.get(path) != new.get(path):
            return f"its {path} is {old.get(path)!r}, yours {new.get(path)!r}"
    return None
