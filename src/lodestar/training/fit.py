"""Forecasts of a run on this device: memory by part, the largest piece of a batch that fits, and the time to the end.

A few real steps on small pieces are taken and thrown away. State and gradients are counted; the memory that a step takes beside
them is measured for pieces of 1, 2, 4 … pictures, and grows evenly beyond the last of them, as the time does. So is the forward
pass alone: of the pieces measured, gradients may take the most, and of larger ones activations, which grow faster.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.table import Table
from torch import Tensor

from lodestar.config import Problem
from lodestar.data import Batch, Shuffled, Source
from lodestar.nets.precision import choose_device
from lodestar.progress import span
from lodestar.tasks import Coupled, Rng
from lodestar.training.inputs import Given
from lodestar.training.memory import beside, held, whole
from lodestar.training.pace import prepared
from lodestar.training.run import Run
from lodestar.training.start import start
from lodestar.training.state import TrainState
from lodestar.training.step import Step

MEMORY_SHARE = 0.9
"""Share of the device's memory that a run may take: allocators do not fill all of it."""
_TIMED = 0.5
"""Seconds of steps that are timed, at least, on each size of pieces."""
_SIZES = 5
"""Sizes of pieces that are measured, at least, unless a step is far too long: of the first ones, gradients take the most, and a
line through them would go far astray."""
_FAR_TOO_LONG = 20.0
"""Seconds of a step after which no larger piece is measured in any case."""
_EACH = 100
"""Random pictures of a class: enough to hold some out."""
_LONG = 2.0
"""Seconds of a step after which no larger piece is measured."""
_GIB = 2**30


@dataclass(frozen=True)
class Measured:
    """A step on a piece of so many pictures."""

    pictures: int
    working: int
    """Most bytes that the step takes, beside the state: gradients, activations, temporary values."""
    forward: int
    """Most bytes that the forward pass alone takes, beside the state: activations. It grows evenly from the first picture on."""
    seconds: float


@dataclass(frozen=True)
class Forecast:
    """A forecast of a run on a device. Bytes and seconds."""

    run: Run
    device: str
    precision: str
    parameters: int
    weights: int
    """Bytes of trained and frozen weights, and buffers."""
    optimizer: int
    averages: int
    gradients: int
    program: int
    """Bytes of the process before there is a model: libraries, and pictures that are kept."""
    memory: int
    """Bytes of the device."""
    steps: tuple[Measured, ...]
    """Measured steps, the pieces growing."""
    processes: int = 1

    @property
    def share(self) -> int:
        """Pictures of a batch for each process, at the largest batch."""
        return -(-self.run.train.batch_at(self.run.train.images) // self.processes)

    @property
    def piece(self) -> int:
        """Pictures of a batch at once, as the run has it."""
        return min(self.run.train.microbatch or self.share, self.share)

    def peak(self, pictures: int) -> int:
        """The most bytes of the process with so many pictures at once."""
        # Several pieces add up their gradients, so all gradients are there beside the activations.
        added = self.gradients if pictures < self.share else 0
        # Of few pictures a step takes the most when it has its gradients, of many when it has its activations.
        working = self._along(pictures, lambda each: each.working, self.gradients) + (added if self.piece == self.share else 0)
        forward = self._along(pictures, lambda each: each.forward, 0) + added
        return self.state + max(working, forward, self.gradients)

    @property
    def largest(self) -> int:
        """The largest number of pictures at once, of a process's share, that fits; 0 if none does."""
        low, high = 0, self.share
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.peak(middle) <= MEMORY_SHARE * self.memory else (low, middle - 1)
        return low

    @property
    def images_per_second(self) -> float:
        """Pictures a second of all processes, if the largest measured piece is as fast as the run's."""
        last = self.steps[-1]
        return self.processes * last.pictures / last.seconds

    def table(self) -> Table:
        """For a person."""
        table = Table("memory", "GiB", title=f"{self.parameters / 1e6:.1f}M parameters on {self.device}, {self.precision}")
        activations = max(self.peak(self.piece) - self.state - self.gradients, 0)
        parts = {
            "weights": self.weights, "optimizer": self.optimizer, "averages": self.averages, "gradients": self.gradients,
            f"activations of {self.piece:,} at once": activations, "libraries and kept pictures": self.program,
        }  # fmt: skip
        for name, size in parts.items():
            table.add_row(name, f"{size / _GIB:.3f}")
        table.add_row("in all, at most", f"{sum(parts.values()) / _GIB:.3f}")
        table.add_row(f"of the device ({MEMORY_SHARE:.0%} counts)", f"{self.memory / _GIB:.3f}")
        return table

    def told(self) -> str:
        """The largest piece, and the time to the run's end."""
        images, largest = self.run.train.images, self.largest
        seconds = span(images / self.images_per_second)
        pace = f"{seconds} for {images:,} images, {self.images_per_second:.3g} images/s with {self.steps[-1].pictures} at once"
        if largest == 0:
            return f"not one picture at once fits: take a device with more memory, or --shard full on several; {pace}"
        whole = (
            f"all {self.share:,} of a process's share of the batch" if largest == self.share else f"train.microbatch={largest}"
        )
        return f"the most pictures at once that fit: {whole}\n{pace}"

    @property
    def state(self) -> int:
        """Bytes of all that stays from step to step, and of the process itself."""
        return self.weights + self.optimizer + self.averages + self.program

    def _along(self, pictures: int, value: Callable[[Measured], int], none: int) -> int:
        """A measured value; between and beyond the measured pieces, on the nearest line through two of them.

        none: the value of no picture, where one piece alone was measured.
        """
        if len(self.steps) == 1:
            return none + (value(self.steps[0]) - none) * pictures // self.steps[0].pictures
        after = next((k for k, each in enumerate(self.steps) if each.pictures >= pictures), len(self.steps) - 1)
        a, b = self.steps[max(after, 1) - 1], self.steps[max(after, 1)]
        return value(a) + (value(b) - value(a)) * (pictures - a.pictures) // (b.pictures - a.pictures)


class Noise:
    """Random pictures in the place of a preset's: of its size and classes, with captions."""

    def __init__(self, run: Run) -> None:
        model: Any = getattr(run.task, "model", None)
        network = getattr(model, "denoiser", None) or getattr(model, "network", None)
        size = run.data.transforms.source_size or getattr(model, "size", None) or getattr(network, "size", None)
        if size is None:
            raise Problem(f"the pictures of a task {run.task.kind!r} have no size of their own: give some with --data")
        self.size = size
        classes = getattr(network, "classes", None)
        self.targets = [str(each) for each in getattr(model, "names", None) or range(classes or 1)] * _EACH

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> dict[str, Any]:
        picture = np.random.default_rng(index).integers(0, 256, (*self.size, 3), np.uint8)
        return {"image": picture, "label": self.targets[index], "caption": f"picture {index}"}


def forecast(
    run: Run,
    device: str | None = None,
    *,
    noise: bool = False,
    processes: int = 1,
    memory: int | None = None,
    most: int | None = None,
) -> Forecast:
    """A forecast from a few real steps, whose weights are thrown away.

    noise: random pictures in the place of the run's. processes: that share a batch. memory: bytes of the device, if not its own.
    most: pictures of a piece to measure at most.
    Raises Problem.
    """
    if run.train.batch_size < processes:
        raise Problem(f"batch size {run.train.batch_size} for {processes} processes: each needs a picture, at least {processes}")
    place = choose_device(device)
    run, source, facts = prepared(run, device, Given(Noise(run)) if noise else Given())
    before = held(place)
    state = start(run, Path(os.devnull), device, facts=facts)
    module, counters = state.learner.module, state.counters
    frozen = [each.module for each in state.learner.frozen.values()]
    trained = {id(each): each for phase in state.learner.phases() for each in phase.parameters}
    memory = memory or whole(place)
    found = Forecast(
        run, str(place), str(counters.precision), sum(each.numel() for each in module.parameters()),
        weights=_bytes([value for each in (module, *frozen) for value in (*each.parameters(), *each.buffers())]),
        optimizer=0, averages=_bytes([value for average in state.averages for value in average.values]),
        gradients=_bytes(trained.values()), program=before, memory=memory, steps=(), processes=processes,
    )  # fmt: skip
    if place.type == "cpu":
        # What libraries load and keep in their first step counts too; of one picture, little else is kept.
        _step(run, state, source, 1, 1)
        kept = found.weights + found.averages + found.gradients + _slots(state)
        found = replace(found, program=max(before, held(place) - kept))
    steps: list[Measured] = []
    for pictures in _sizes(min(found.piece, most or found.piece)):
        steps.append(_measured(run, state, source, pictures, pieced=found.piece < found.share))
        long = steps[-1].seconds > (_LONG if len(steps) >= _SIZES else _FAR_TOO_LONG)
        if long or found.weights + 3 * steps[-1].working > MEMORY_SHARE * memory:
            break
    return replace(found, steps=tuple(steps), optimizer=_slots(state))


def _sizes(most: int) -> Iterator[int]:
    """1, 2, 4 … below `most`, and `most`."""
    size = 1
    while size < most:
        yield size
        size *= 2
    yield most


def _measured(run: Run, state: TrainState, source: Source, pictures: int, pieced: bool) -> Measured:
    """A step on one piece of so many pictures, or on two pieces where the run has several."""
    count = 2 * pictures if pieced else pictures
    step, batch = _step(run, state, source, count, pictures)
    for optimizer in state.optimizers.values():
        optimizer.zero_grad(set_to_none=True)
    step.last = None
    # As a run's first step, which does all that is done at times.
    state.counters.steps = 0
    for value in state.learner.memory().values():
        value.zero_()
    forward = _forward(step, batch[:pictures])
    # The heap of a second step has the holes that the first has left.
    working, seconds = beside(lambda: (step(batch), step(batch)), step.device), list[float]()
    while not seconds or sum(seconds) < _TIMED:
        began = time.perf_counter()
        step(batch)
        if step.device.type == "cuda":
            torch.cuda.synchronize(step.device)
        seconds.append(time.perf_counter() - began)
    return Measured(pictures, working, forward, statistics.median(seconds) * pictures / count)


def _forward(step: Step, batch: Batch) -> int:
    """Most bytes of the forward pass of one piece, in the phase that takes the most."""
    losses = [each.loss.encode if isinstance(each.loss, Coupled) else each.loss for each in step.phases]
    rng = torch.Generator(step.device)
    return max(beside(partial(loss, batch, Rng(rng, len(batch))), step.device) for loss in losses)


def _step(run: Run, state: TrainState, source: Source, count: int, pictures: int) -> tuple[Step, Batch]:
    """A step of batches of `count`, so many pictures at once, that was taken once: it sets up what the next ones find there."""
    settings = run.train.replace(batch_size=count, batch_doublings=(), microbatch=pictures, compile=False)
    step = Step(run.replace(train=settings), state)
    batch = next(Shuffled(source, count, run.data.transforms, workers=0).batches(0))
    step(batch)
    return step, batch


def _slots(state: TrainState) -> int:
    """Bytes of the optimizers' own tensors."""
    slots = [slot for each in state.optimizers.values() for slots in each.state.values() for slot in slots.values()]
    return _bytes(slot for slot in slots if isinstance(slot, Tensor))


def _bytes(tensors: Iterable[Tensor]) -> int:
    return sum(each.numel() * each.element_size() for each in tensors)
