"""The desk: makes the pictures of requests one after another, on a thread of its own, and tells how far they are."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import threading
import time
import warnings
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from lodestar.config import Note, Problem
from lodestar.files import write_text
from lodestar.generators.request import Frame
from lodestar.generators.samples import Samples
from lodestar.web.calls import Call, make
from lodestar.web.requests import Limits
from lodestar.web.shelf import Shelf

_OFTEN = 0.2
"""Least seconds between two previews."""
_TOGETHER = 8
"""Most pictures of a batch for several requests: the first of them waits for all."""
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
    whole: Future[Made] = field(default_factory=Future)
    news: asyncio.Event = field(default_factory=asyncio.Event)
    stopped: threading.Event = field(default_factory=threading.Event)
    preview: Preview | None = None
    """The latest one, until it is taken."""
    at: int = 0
    """Number of the call that is at work."""
    until: float | None = None
    """The time at which the work has to be done; None until it begins."""
    shown: float = 0.0
    """Time of the latest preview."""
    seen: dict[int, Tensor] = field(default_factory=dict)
    """The pictures of the present call as they are estimated now, by number."""

    @property
    def count(self) -> int:
        """Number of pictures."""
        return sum(call.count for call in self.calls)

    def like(self, other: _Job) -> bool:
        """True if the pictures of both may be made in the same batches."""
        return len(self.calls) == len(other.calls) and all(map(Call.like, self.calls, other.calls))

    def begin(self) -> bool:
        """Begin the work; False where its client has left."""
        self.until = time.monotonic() + self.limits.seconds
        self.tell()
        return self.whole.set_running_or_notify_cancel()

    def tell(self) -> None:
        """Wake who waits for news."""
        self.loop.call_soon_threadsafe(self.news.set)

    def fail(self, error: BaseException) -> None:
        """End the work with an error, unless it has ended."""
        if not self.whole.done():
            self.whole.set_exception(error)

    def watch(self, number: int, frame: Frame) -> None:
        """Look at a step of a call, by number, and keep a preview. Raises Problem once the time is over."""
        if self.stopped.is_set():
            raise _StoppedError
        if number != self.at:
            self.at, self.shown, self.seen = number, 0.0, {}
        if time.monotonic() > (self.until or 0):
            raise Problem(f"this takes longer than {self.limits.seconds:g} seconds, the most here: ask for less")
        if time.monotonic() - self.shown > _OFTEN or frame.final:
            self.seen.update(enumerate(frame.images, frame.first))
            self.preview = Preview(self.calls[number].title, list(self.seen.values()), frame.step, frame.steps)
            self.shown = time.monotonic()
            self.tell()

    def end(self, made: Sequence[Samples], notes: Sequence[str], shelf: Shelf) -> None:
        """End the work with its pictures, unless it has ended."""
        if self.whole.done():
            return
        told = tuple(dict.fromkeys(bare(note, self.folder) for note in notes))
        self.whole.set_result(Made(self.calls, tuple(made), told, self._packed(made, shelf)))

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


@contextlib.contextmanager
def _noted() -> Iterator[list[str]]:
    """The notes of this thread: others check requests meanwhile."""
    notes: list[str] = []
    here = threading.get_ident()

    def note(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        if issubclass(category, Note) and threading.get_ident() == here:
            notes.append(str(message))

    with warnings.catch_warnings():
        warnings.simplefilter("always", Note)
        warnings.showwarning = note
        yield notes


class Desk:
    """A queue of requests, and a thread that makes their pictures, request by request or in shared batches."""

    def __init__(self, shelf: Shelf, limits: Limits) -> None:
        self.shelf, self.limits = shelf, limits
        self._pool = ThreadPoolExecutor(1, "sampling")
        self.line: list[_Job] = []

    async def answer(self, calls: Sequence[Call], client: str, folder: Path) -> AsyncIterator[Waiting | Preview | Made | None]:
        """The pictures of a checked request while they are made, and at the end all of them; None where nothing is new.

        Whoever leaves the iterator stops the work within a step. folder: that of the uploaded files. Raises Problem.
        """
        self._admit(client)
        job = _Job(tuple(calls), client, folder, self.limits, asyncio.get_running_loop())
        self.line.append(job)
        whole = asyncio.wrap_future(job.whole)
        whole.add_done_callback(lambda _: job.news.set())
        self._pool.submit(self._work, job)
        try:
            before = -1
            while not whole.done():
                if job.until is None and before != (before := self.line.index(job)):
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

    def check(self, calls: Sequence[Call]) -> None:
        """Raise Problem for a request that the models refuse, and for too many pictures or steps. Nothing is made."""
        count = sum(call.count for call in calls)
        if count > self.limits.pictures:
            raise Problem(f"this makes {count} pictures: {self.limits.pictures} are the most here")
        for call in calls:
            if (steps := call.prepared(self.shelf).length) > self.limits.steps:
                raise Problem(f"this takes {steps} steps: {self.limits.steps} are the most here")

    def _admit(self, client: str) -> None:
        """Raise Problem where there is no room for another request of a client."""
        if len(self.line) >= self.limits.waiting:
            raise Problem(f"{self.limits.waiting} requests are waiting already: try again later")
        if sum(job.client == client for job in self.line) >= self.limits.each:
            raise Problem(f"{self.limits.each} requests of yours are waiting already: let one end first")

    def _work(self, job: _Job) -> None:
        """Answer a request, and those that wait for the like."""
        jobs = [] if job.until is not None else [each for each in self._alike(job) if each.begin()]
        made: list[list[Samples]] = [[] for _ in jobs]

        def watch(call: int, number: int, frame: Frame) -> None:
            try:
                jobs[number].watch(call, frame)
            except (Problem, _StoppedError) as error:  # it alone ends, and the others of the batch go on
                jobs[number].fail(error)
            if all(each.whole.done() for each in jobs):
                raise _StoppedError

        try:
            with _noted() as notes:
                for number, calls in enumerate(zip(*(each.calls for each in jobs), strict=True)):
                    for each, samples in zip(made, make(calls, self.shelf, partial(watch, number)), strict=True):
                        each.append(samples)
            for one, every in zip(jobs, made, strict=True):
                one.end(every, notes, self.shelf)
        except BaseException as error:  # clients are told of it, whatever it is
            for one in jobs:
                one.fail(error)

    def _alike(self, job: _Job) -> list[_Job]:
        """A job, and those that wait and whose pictures are made in the same batches, as long as they are few."""
        found, count = [job], job.count
        for other in list(self.line):
            if other is not job and other.until is None and job.like(other) and count + other.count <= _TOGETHER:
                found.append(other)
                count += other.count
        return found
