"""Ctrl-C, held back until it can do no harm."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType
from typing import Self


class Interrupt:
    """While the block lasts, a first Ctrl-C only sets `asked`, so that no step is left half-done; a second one interrupts.

    Where signals cannot be received (outside the main thread) or are ignored (in the background), nothing changes.
    """

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = signal.getsignal(signal.SIGINT)
        self._held = threading.current_thread() is threading.main_thread() and callable(self._before)
        if self._held:
            signal.signal(signal.SIGINT, self._ask)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._release()

    def _ask(self, _number: int, _frame: FrameType | None) -> None:
        self.asked = True
        self._release()

    def _release(self) -> None:
        if self._held:
            signal.signal(signal.SIGINT, self._before)
            self._held = False
