"""Results at an address, such as ``--out s3://bucket/run``: files are put there, whole, as they appear in a working folder.

The store has the truth: a command begins with its files, and the working folder goes when the process ends. Files are put in
the order of writing, so a killed command leaves in the store what would be left in a folder.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import os
import shutil
import socket
import threading
from pathlib import Path, PurePosixPath

from lodestar.config import Problem
from lodestar.data.remote import is_address, store_of
from lodestar.files import STORES, cache_folder, is_temporary, lock, reading
from lodestar.world import here

_held = contextlib.ExitStack()
"""Locks and working folders, until the process ends."""
atexit.register(_held.close)


class Results:
    """The files of a working folder at an address."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        self.store, self.root = store_of(url)
        self._turn = threading.Lock()  # a store has one transaction at a time, and checkpoints may be written by a thread

    def __call__(self, path: Path) -> None:
        """Put a file that has appeared, or remove from the store what has gone. Raises Problem."""
        name = path.relative_to(self.folder).as_posix()
        with self._turn, reading(f"{self.url}/{name}", "cannot be written"):
            at = self.root if path == self.folder else f"{self.root}/{name}"
            if not path.exists():
                if self.store.exists(at):
                    self.store.rm(at, recursive=True)
                return
            if "file" in self.store.protocol:
                self.store.makedirs(self.store._parent(at), exist_ok=True)
            # What is written in a transaction appears whole at its end, or, after an error, not at all.
            with self.store.transaction, open(path, "rb") as file, self.store.open(at, "wb") as there:
                shutil.copyfileobj(file, there, 2**24)

    def bring(self) -> None:
        """Fetch the files that the working folder has not. Raises Problem."""
        with reading(self.url):
            self.store.invalidate_cache()
            wanted: dict[str, Path] = {}
            for each in self.store.find(self.root):
                name = PurePosixPath(each[len(self.root) :].lstrip("/"))
                if ".." in name.parts:
                    raise Problem(f"{self.url}/{name} is no file of a folder")
                if not is_temporary(path := self.folder / name) and not path.exists():
                    wanted[each] = path
            for path in wanted.values():
                path.parent.mkdir(parents=True, exist_ok=True)
            if wanted:
                self.store.get(list(wanted), list(map(str, wanted.values())))

    def check(self) -> None:
        """Raise Problem where the store takes no files, before the work whose results it is to hold."""
        path = self.folder / f".{os.getpid()}.tmp"
        path.touch()
        self(path)
        path.unlink()
        self(path)


def results_folder(out: str | Path) -> Path:
    """The folder to write results to: `out`, or of an address a working folder, with what the store has. Raises Problem."""
    if isinstance(out, Path) or not is_address(out):
        return Path(out)
    url = out.rstrip("/")
    for folder, store in STORES.items():
        if store.url == url:
            return folder
    # A cache may be seen by several machines, and each has a folder of its own.
    digest = hashlib.sha256(f"{socket.gethostname()} {url}".encode()).hexdigest()[:8]
    folder = (cache_folder() / "results" / f"{PurePosixPath(url).name}-{digest}").absolute()
    results, world = Results(url, folder), here()
    with world.in_turn():
        if os.environ.get("LOCAL_RANK", "0") == "0":
            taken = f"another process of this machine writes to {url}"
            _held.enter_context(lock(folder.with_name(f"{folder.name}.lock"), taken))
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            _held.callback(shutil.rmtree, folder, ignore_errors=True)
            results.bring()
            if world.rank == 0:
                results.check()
    STORES[folder] = results
    _held.callback(STORES.pop, folder)
    return folder


def beside(folder: Path, suffix: str) -> Path:
    """The folder whose name has this suffix, beside one of results; of an address, its working folder. Raises Problem."""
    store = STORES.get(folder)
    return folder.with_name(f"{folder.name}{suffix}") if store is None else results_folder(f"{store.url}{suffix}")


def bring(folder: Path) -> None:
    """Fetch what processes of other machines have put to the address of a working folder. Raises Problem."""
    store = STORES.get(folder)
    if isinstance(store, Results):
        store.bring()
