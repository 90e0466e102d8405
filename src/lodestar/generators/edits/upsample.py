"""Enlarging, by a model that was trained to: its network sees the small picture beside x (ADM-U, Dhariwal and Nichol 2021)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from lodestar.conditions import Ask
from lodestar.config import Count, Problem, checked
from lodestar.core.noise import seeds_from
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, asking
from lodestar.samplers import State


class Upsample(Edit):
    """Makes a large picture of each small one."""

    kind: Literal["upsample"] = "upsample"

    @property
    def enlarges(self) -> bool:
        return True

    def asks(self, pictures: int, wanted: Sequence[Ask], count: int | None, seed: int) -> tuple[Ask, ...]:
        """Every picture once, or over again until there are `count` results, each with the next of what is wanted."""
        if not pictures:
            raise Problem("upsample needs a picture to enlarge, and none is given")
        seeds = seeds_from(seed, checked("count", pictures if count is None else count, Count))
        return tuple(asking(wanted[k % len(wanted)], own, source=k % pictures) for k, own in enumerate(seeds))

    def length(self, steps: Sequence[Transition]) -> int:
        return len(steps)

    def states(self, job: EditJob) -> Iterator[State]:
        yield from job.sampler(job.denoise(job.request.asks), job.start(), job.steps, job.noise)
