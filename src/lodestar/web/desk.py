"""The desk: makes the pictures of requests one after another, on a thread of its own, and tells how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
import warnings
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from torch import Tensor

from lodestar.config import Note, Problem
from lodestar.files import write_text
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.web.calls import Call
from lodestar.web.requests import Limits
from lodestar.web.shelf import Shelf

_OFTEN = 0.2
"""Least seconds between two previews."""
_LOOK = 1.0
"""Most seconds until a look whether a client is still there."""


@dataclass(frozen=True)
class Made:
    """The pictures of a request."""

    calls: tuple[Call, ...]
    samples: tuple[Samples, ...]
    notes: tuple[str, ...]
    archive: Path
    """Zip file of the pictures as PNG, with their manifests."""


@dataclass(frozen=True)
class Preview:
    """The pictures of a call as they are estimated now."""

    title: str
    images: Sequence[Tensor]
    """uint8 [C, H, W] each."""
    step: int
    steps: int


@dataclass(frozen=True)
class Waiting:
    """The place of a request in the queue."""

    before: int
    """Requests that come first."""


class _StoppedError(Exception):
    """Ends the work of a client that has left."""


@dataclass(eq=False)
class _Job:
    """The work of a request."""

    calls: tuple[Call, ...]
    client: str
    folder: Path
    limits: Limits
    loop: asyncio.AbstractEventLoop
    news: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    preview: Preview | None = None
    """The latest one, until it is taken."""
    begun: bool = False

    def tell(self) -> None:
        """Wake who waits for news."""
        self.loop.call_soon_threadsafe(self.news.set)

    def run(self, shelf: Shelf) -> Made:
        """Make the pictures. Raises Problem, also where a limit is reached."""
        self.begun, until, made = True, time.monotonic() + self.limits.seconds, []
        self.tell()
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always", Note)
            for call in self.calls:
                made.append(call(shelf, self._watch(call.title, until)))
        if self.stopped.is_set():
            raise _StoppedError
        notes = tuple(dict.fromkeys(bare(str(each.message), self.folder) for each in found if issubclass(each.category, Note)))
        return Made(self.calls, tuple(made), notes, self._packed(made, shelf))

    def _watch(self, title: str, until: float) -> Any:
        """The function to be called after every step of a call."""
        seen: dict[int, Tensor] = {}
        shown = 0.0

        def watch(frame: Frame) -> None:
            nonlocal shown
            if self.stopped.is_set():
                raise _StoppedError
            if frame.steps > self.limits.steps:
                raise Problem(f"this takes {frame.steps} steps: {self.limits.steps} are the most here")
            if time.monotonic() > until:
                raise Problem(f"this takes longer than {self.limits.seconds:g} seconds, the most here: ask for less")
            if time.monotonic() - shown > _OFTEN or frame.final:
                seen.update(enumerate(frame.images, frame.first))
                self.preview, shown = Preview(title, list(seen.values()), frame.step, frame.steps), time.monotonic()
                self.tell()

        return watch

    def _packed(self, made: Sequence[Samples], shelf: Shelf) -> Path:
        """A zip file of the pictures with their manifests, what they are made of, and the lines that make them again."""
        for number, samples in enumerate(made):
            samples.save(self.folder / out_of(self.calls, number))
        write_text(self.folder / "again.sh", "".join(f"{line}\n" for line in commands(self.calls, shelf)))
        return Path(shutil.make_archive(str(self.folder.with_name("pictures")), "zip", self.folder))


def bare(text: str, folder: Path) -> str:
    """A message that names files of a request without the folder that they were in."""
    return text.replace(f"{folder}{os.sep}", "")


def out_of(calls: Sequence[Call], number: int) -> str:
    """Folder of a call's pictures in the archive."""
    return "pictures" if len(calls) == 1 else f"pictures-{number + 1}"


def commands(calls: Sequence[Call], shelf: Shelf) -> list[str]:
    """The lines of the shell that make the pictures again."""
    return [call.command(shelf.loading, out_of(calls, number)) for number, call in enumerate(calls)]


class Desk:
    """A queue of requests, and a thread that answers one at a time."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf, self.limits = shelf, limits
        self._pool = ThreadPoolExecutor(1, "sampling")
        self.line: list[_Job] = []

    async def answer(self, calls: Sequence[Call], client: str, folder: Path) -> AsyncIterator[Waiting | Preview | Made | None]:
        """The pictures of a request while they are made, and at the end all of them; None where nothing is new.

        Whoever leaves the iterator stops the work within a step. folder: that of the uploaded files. Raises Problem.
        """
        self._check(calls, client)
        job = _Job(tuple(calls), client, folder, self.limits, asyncio.get_running_loop())
        self.line.append(job)
        whole = asyncio.wrap_future(self._pool.submit(job.run, self.shelf))
        whole.add_done_callback(lambda _: job.news.set())
        try:
            before = -1
            while not whole.done():
                if not job.begun and before != (before := self.line.index(job)):
                    yield Waiting(before)
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(job.news.wait(), _LOOK)
                job.news.clear()
                preview, job.preview = job.preview, None
                yield preview
            yield await whole
        finally:
            job.stopped.set()
            whole.cancel()
            self.line.remove(job)

    def _check(self, calls: Sequence[Call], client: str) -> None:
        """Raise Problem for more than there is room for, and for more pictures than are allowed."""
        count = sum(call.count for call in calls)
        if count > self.limits.pictures:
            raise Problem(f"this makes {count} pictures: {self.limits.pictures} are the most here")
        if len(self.line) >= self.limits.waiting:
            raise Problem(f"{self.limits.waiting} requests are waiting already: try again later")
        if sum(job.client == client for job in self.line) >= self.limits.each:
            raise Problem(f"{self.limits.each} requests of yours are waiting already: let one end first")
