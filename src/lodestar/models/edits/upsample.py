"""Enlarging, by a model that was trained to: its network sees the small picture beside x (ADM-U, Dhariwal and Nichol 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from lodestar.config import Problem
from lodestar.core.transition import Transition
from lodestar.models.edits.base import Batch, Edit, Layout
from lodestar.samplers import State


class Upsample(Edit):
    """Makes a large picture of each small one."""

    kind: Literal["upsample"] = "upsample"

    @property
    def enlarges(self) -> bool:
        return True

    def layout(self, pictures: int, labels: int, count: int | None) -> Layout:
        """Every picture once, or over again until there are `count` results, each with the next of the labels."""
        if not pictures:
            raise Problem("upsample needs a picture to enlarge, and none is given")
        numbers = range(pictures if count is None else count)
        return Layout(
            sources=tuple(k % pictures for k in numbers),
            labels=tuple(k % labels for k in numbers),
            seeds=tuple(numbers),
        )

    def length(self, steps: Sequence[Transition]) -> int:
        return len(steps)

    def states(self, batch: Batch) -> Iterator[State]:
        yield from batch.sampler(batch.denoise(batch.request.labels), batch.start(), batch.steps, batch.noise)
