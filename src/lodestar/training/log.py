"""The log of a run: a progress bar, a JSON line for every `log_every` images, and TensorBoard."""

from __future__ import annotations

import contextlib
import json
import math
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lodestar.config import Problem, from_json
from lodestar.extras import need
from lodestar.files import changed, reading, regular, write_text
from lodestar.training.names import BOARD, LOG


class Log:
    """Collects numbers and writes their means."""

    def __init__(self, folder: Path, images_seen: int) -> None:
        self.path = folder / LOG
        self.sums: dict[str, Tensor] = {}
        self.counts: dict[str, int] = defaultdict(int)
        self._drop_lines_after(images_seen)
        writer, before = need("torch.utils.tensorboard").SummaryWriter, set((folder / BOARD).glob("*"))
        # What an interrupted run logged after its last checkpoint is hidden, since it will be logged again.
        self.board = writer(str(folder / BOARD), purge_step=images_seen)
        self.files = (self.path, *set((folder / BOARD).glob("*")) - before)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Count per-sample values in [B]. They are summed where they are: a device is waited for in `write` alone."""
        for name, value in values.items():
            total = value.sum(dtype=torch.float64)
            self.sums[name] = self.sums[name] + total if name in self.sums else total
            self.counts[name] += value.numel()

    def write(self, images_seen: int, **more: float) -> dict[str, float]:
        """Write the means since the last line, and other numbers. Raises Problem when the disk is full."""
        line: dict[str, Any] = {"images": images_seen, "time": round(time.time(), 3)}
        line |= {name: self.sums[name].item() / self.counts[name] for name in self.sums} | more
        self.sums.clear()
        self.counts.clear()
        try:
            with open(self.path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
            for name, value in line.items():
                if name not in ("images", "time"):
                    self.board.add_scalar(name, value, images_seen)
        except OSError as error:
            raise Problem(f"cannot write {self.path}: {error.strerror or error}") from error
        return line

    def picture(self, name: str, grid: Any, images_seen: int) -> None:
        """Show a picture, uint8 [H, W, C], on the board."""
        self.board.add_image(name, grid, images_seen, dataformats="HWC")

    def keep(self) -> None:
        """Put the log and the board as they are now into the store of the run, where there is one: before the state."""
        with contextlib.suppress(OSError):
            self.board.flush()
        for path in self.files:
            changed(path)

    def close(self) -> None:
        """Write out what is held back."""
        # On a full disk the board has lost its last lines; log.jsonl has them, or has said so.
        with contextlib.suppress(OSError):
            self.board.close()
        self.keep()

    def _drop_lines_after(self, images_seen: int) -> None:
        if not self.path.exists():
            return
        with reading(self.path):
            lines = regular(self.path).read_text(encoding="utf-8").splitlines()
        kept = [line for line in lines if _images(line) <= images_seen]
        if len(kept) < len(lines):
            write_text(self.path, "".join(line + "\n" for line in kept))


class Unwritten(Log):
    """The log of a process that leaves writing to the first."""

    def __init__(self) -> None:
        return

    def add(self, values: Mapping[str, Tensor]) -> None:
        return

    def write(self, images_seen: int, **more: float) -> dict[str, float]:
        return {}

    def keep(self) -> None:
        return

    def close(self) -> None:
        return


def _images(line: str) -> float:
    try:
        return float(from_json(line)["images"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return float("inf")  # the last line of a killed run may be cut


_OTHER = ("images", "time", "images_per_second", "skipped", "rate", "gradient")
"""Numbers of a log that tell of the work and not of the model."""


def numbers(folder: Path) -> dict[str, list[tuple[float, float]]]:
    """Losses and held-out numbers of a run's log by name, each as pairs of images seen and value. Raises Problem without any.

    A line that was cut when a run was killed is left out.
    """
    path = folder / LOG
    with reading(path):
        lines = regular(path).read_text(encoding="utf-8").splitlines()
    found: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        if not math.isfinite(images := _images(line)):
            continue
        for name, value in from_json(line).items():
            if name not in _OTHER and isinstance(value, int | float):
                found.setdefault(name, []).append((images, value))
    if not found:
        raise Problem(f"{path} has no numbers of a training run")
    return found
