"""Inpainting with a model that knows whole pictures alone: RePaint (Lugmayr et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.config import TIMESTEPS, Problem
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.samplers import Ancestral, Sampler, State
from lodestar.samplers.repaint import repaint, walk


class Inpaint(Edit):
    """Makes the places anew that have any white in a mask, and keeps the others as they are."""

    kind: Literal["inpaint"] = "inpaint"
    resamples: int = Field(default=10, ge=1, le=1_000)
    """r, how often each stretch is gone down; 1 is never to go back, and only to paste."""
    jump: int = Field(default=10, ge=1, le=TIMESTEPS)
    """j, how many steps long a stretch is."""

    @property
    def usual(self) -> Sampler:
        """The paper's."""
        return Ancestral()

    def length(self, steps: Sequence[Transition]) -> int:
        return sum(1 for _ in walk(steps, self.jump, self.resamples))

    def states(self, job: EditJob) -> Iterator[State]:
        assert job.mask is not None
        yield from repaint(
            job.sampler, job.denoise(job.request.asks), job.start(), job.steps, job.noise,
            job.sources, job.mask, self.jump, self.resamples,
        )  # fmt: skip

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        if mask is None:
            raise Problem("inpaint needs a mask, white where the picture is to be filled in, and none is given")
        if not mask.any():
            raise Problem("nothing is masked: the mask is to be True where the picture is to be filled in, and is so nowhere")
        if self.resamples > 1 and self.jump >= len(steps):
            raise Problem(
                f"jump is {self.jump}: of {len(steps)} steps, at most {len(steps) - 1} can be gone back (or give resamples 1)"
            )
