"""A call in a process of its own, with a limit of time and one of memory, and what became of it.

The process is forked from one that has imported everything, so that a case costs milliseconds. It has to have no threads then.
"""

from __future__ import annotations

import os
import resource
import shutil
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

SECONDS = 10
"""Processor time. A call that takes more is a hang: on valid input, all of them take a tenth of it."""
WAIT = 30.0
"""Seconds after which a call that takes none is one too."""
BYTES = 1 << 30
"""Address space that a call may take beyond what it starts with."""
SHOWN = 2_000
"""Characters of its output that a failure shows, the last."""


@dataclass(frozen=True)
class Call:
    """Something to be done in a folder of its own."""

    kind: str
    """What is damaged."""
    number: int
    prepare: Callable[[Path], Callable[[], Any]] = field(repr=False)
    """Fills the folder, and gives what to do there."""
    spoken: bool = False
    """It may have told what it does before it is refused."""


@dataclass(frozen=True)
class Outcome:
    """What became of a call."""

    call: Call
    verdict: str
    """ok, refused, or what is wrong: traceback, hang, memory, killed, left behind, lines."""
    status: int | None
    output: str
    seconds: float
    """Processor time."""
    bytes: int
    """The most memory that was resident, that of the libraries included."""
    left: tuple[str, ...] = ()
    """Files that it left behind."""

    @property
    def good(self) -> bool:
        """Whether it is as it should be."""
        return self.verdict in ("ok", "refused")


def run(calls: Iterable[Call], home: Path, jobs: int = 1, seconds: int = SECONDS, wait: float = WAIT) -> Iterator[Outcome]:
    """The outcomes of calls, in the order in which they end, so many at a time."""
    running: dict[int, tuple[Call, Path, set[str], float]] = {}
    ending, waiting = False, iter(calls)
    while running or not ending:
        while len(running) < jobs and not ending:
            call = next(waiting, None)
            if call is None:
                ending = True
                break
            folder = home / f"{call.kind.replace(' ', '-')}-{call.number}"
            folder.mkdir(parents=True)
            doing = call.prepare(folder)
            before = _names(folder)
            running[_start(doing, folder, seconds)] = call, folder, before, time.monotonic()
        for process in list(running):
            call, folder, before, began = running[process]
            hung = time.monotonic() - began > wait + seconds
            if hung:
                os.kill(process, signal.SIGKILL)
            ended, status, used = os.wait4(process, 0 if hung else os.WNOHANG)
            if ended:
                del running[process]
                yield _judged(call, folder, before, None if hung else status, used)
                shutil.rmtree(folder, ignore_errors=True)
        time.sleep(0.002)


def _start(doing: Callable[[], Any], folder: Path, seconds: int) -> int:
    """The number of the process that does it."""
    sys.stdout.flush()
    sys.stderr.flush()
    if process := os.fork():
        return process
    status = 1
    try:
        os.chdir(folder)
        for number in (1, 2):
            os.dup2(os.open(_output(folder), os.O_WRONLY | os.O_CREAT | os.O_APPEND), number)
        limit = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds))
        doing()
        status = 0
    except SystemExit as exit_:
        status = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(status)


def _output(folder: Path) -> Path:
    """Beside the folder, where nothing of the call looks."""
    return folder.with_name(f"{folder.name}.output")


def _judged(call: Call, folder: Path, before: set[str], status: int | None, used: resource.struct_rusage) -> Outcome:
    path = _output(folder)
    output = path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""
    path.unlink(missing_ok=True)
    code = None if status is None else os.waitstatus_to_exitcode(status)
    left = () if code == 0 else tuple(sorted(_names(folder) - before))
    lines = [line for line in output.splitlines() if not line.startswith("lodestar: note:")]
    if code is None or code == -signal.SIGXCPU or code == -signal.SIGKILL:
        verdict = "hang"
    elif code < 0:
        verdict = "killed"
    elif "MemoryError" in output or "not enough memory" in output or "allocate memory" in output:
        verdict = "memory"
    elif "Traceback (most recent call last)" in output or code not in (0, 2):
        verdict = "traceback"
    elif code == 0:
        verdict = "ok"
    elif not lines or not lines[-1].startswith("lodestar: ") or (len(lines) > 1 and not call.spoken):
        verdict = "lines"
    elif left:
        verdict = "left behind"
    else:
        verdict = "refused"
    return Outcome(call, verdict, code, output[-SHOWN:], used.ru_utime + used.ru_stime, used.ru_maxrss * 1024, left)


def _names(folder: Path) -> set[str]:
    return {os.path.relpath(os.path.join(parent, name), folder)
            for parent, folders, files in os.walk(folder) for name in (*folders, *files)}  # fmt: skip
