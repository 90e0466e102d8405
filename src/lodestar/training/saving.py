"""The writing of checkpoints, at once or behind the training, and the earlier ones that are kept."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from lodestar import checkpoint
from lodestar.config import Problem
from lodestar.files import changed, remove
from lodestar.training.names import STATE

KEPT = "state-*.safetensors"
"""Names of earlier states, by images seen, in the order of the run."""


class Saving:
    """The writer of a run's files: in the order given, and before any other is written.

    Behind the training, a thread writes copies of the tensors on the CPU, while steps go on.
    """

    def __init__(self, behind: bool = False) -> None:
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="lodestar-saving") if behind else None
        self._written: list[Future[None]] = []

    def copied(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The tensors, as they stay while training goes on."""
        return {name: each if self.pool is None else each.detach().to("cpu", copy=True) for name, each in tensors.items()}

    def __call__(self, write: Callable[[], None]) -> None:
        """Write a file. Raises Problem, here or when it is waited for."""
        if self.pool is None:
            write()
        else:
            self._written.append(self.pool.submit(self._after, write, tuple(self._written)))

    def wait(self) -> None:
        """Wait for all files. Raises Problem for the first that could not be written; none after it was."""
        written, self._written = self._written, []
        for each in written:
            each.result()

    def close(self) -> None:
        """Wait for all files, and end the thread. Raises Problem, as `wait` does."""
        try:
            self.wait()
        finally:
            if self.pool is not None:
                self.pool.shutdown()

    @staticmethod
    def _after(write: Callable[[], None], before: tuple[Future[None], ...]) -> None:
        for each in before:
            each.result()
        write()


def keep(folder: Path, count: int) -> None:
    """Keep the folder's state under a name of its own, and of such files the last ones: with the next state, `count` in all."""
    path = folder / STATE
    if count > 1 and path.exists():
        name = KEPT.replace("*", f"{checkpoint.peek(path).provenance['images_seen']:012d}")
        if not (folder / name).exists():
            try:
                os.link(path, folder / name)
            except OSError as error:
                raise Problem(f"train.keep is {count}, and {folder} takes no second name of a file: {error.strerror}") from error
            changed(folder / name)
    for earlier in kept(folder)[: 1 - count or None]:
        remove(earlier)


def kept(folder: Path) -> list[Path]:
    """The earlier states of a folder, oldest first."""
    return sorted(folder.glob(KEPT))
