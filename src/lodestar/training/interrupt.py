"""Delayed handling of Ctrl-C and of SIGTERM, the signal by which clusters end a job."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Any, Self


class Interrupt:
    """A block in which a first Ctrl-C or SIGTERM only sets `asked`, so no step is left half-done; a second one acts.

    A patient block takes any number of them: a launcher passes on what the terminal has sent to all of its processes already.
    Has no effect where signals cannot be received (outside the main thread) or are ignored (in the background).
    """

    def __init__(self, patient: bool = False) -> None:
        self.asked, self.patient = False, patient
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        if not self.patient:
            self._release()

    def _release(self) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        self._before.clear()
