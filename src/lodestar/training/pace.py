"""The pace of training, measured by the first steps of a run, for budgets in seconds."""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

from lodestar.data import DataFacts, Shuffled, Source
from lodestar.progress import MEASURED
from lodestar.training.coding import coded
from lodestar.training.embedding import joined
from lodestar.training.inputs import Given, facts_of, open_data
from lodestar.training.run import Run
from lodestar.training.start import start
from lodestar.training.step import Step

_STEPS = 8
"""Least number of steps, so that every phase has a turn."""


def pace(run: Run, folder: Path, device: str | None = None) -> float:
    """Images a second that training makes here, in a few seconds of steps whose weights are thrown away.

    folder: of the run, which has not begun. Raises Problem.
    """
    run, source, facts = prepared(run, device)
    step = Step(run, start(run, folder, device, facts=facts))
    config, data = run.train, run.data
    with contextlib.closing(Shuffled(source, config.batch_at, data.transforms, data.workers).batches(config.seed, 0)) as stream:
        step(next(stream))  # sets up what the others find there
        began, images, steps = time.perf_counter(), 0, 0
        while steps < _STEPS or time.perf_counter() - began < MEASURED:
            batch = next(stream)
            step(batch)
            images, steps = images + len(batch), steps + 1
        return images / (time.perf_counter() - began)


def prepared(run: Run, device: str | None = None, given: Given = Given()) -> tuple[Run, Source, DataFacts]:  # noqa: B008 (it is frozen)
    """A run completed by facts of its data, or of those given in their place, and the data. Raises Problem."""
    run, source, held_out = joined(run, *open_data(run, given), device)
    facts = facts_of(run, source)
    run = run.replace(task=run.task.resolve(facts))
    return run, coded(run, source, held_out, device)[0], facts
