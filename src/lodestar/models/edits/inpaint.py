"""Inpainting with a model that knows whole pictures alone: RePaint (Lugmayr et al. 2022)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field
from torch import Tensor

from lodestar.config import TIMESTEPS, Problem
from lodestar.core.transition import Transition
from lodestar.models.edits.base import Batch, Edit
from lodestar.samplers import Ancestral, AnySampler, State
from lodestar.samplers.repaint import repaint, walk

if TYPE_CHECKING:
    from lodestar.models.editing import EditRequest


class Inpaint(Edit):
    """Makes what a mask names anew, and keeps the rest as it is."""

    kind: Literal["inpaint"] = "inpaint"
    resamples: int = Field(default=10, ge=1, le=1_000)
    """r, how often each stretch is gone down; 1 is never to go back, and only to paste."""
    jump: int = Field(default=10, ge=1, le=TIMESTEPS)
    """j, how many steps long a stretch is."""

    @property
    def usual(self) -> AnySampler:
        """The paper's."""
        return Ancestral()

    def length(self, steps: Sequence[Transition]) -> int:
        return sum(1 for _ in walk(steps, self.jump, self.resamples))

    def states(self, batch: Batch) -> Iterator[State]:
        assert batch.mask is not None
        yield from repaint(
            batch.sampler, batch.denoise(batch.request.labels), batch.start(), batch.steps, batch.noise,
            batch.sources, batch.mask, self.jump, self.resamples,
        )  # fmt: skip

    def check(self, request: EditRequest, sampler: AnySampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        if mask is None:
            raise Problem("inpaint needs a mask, white where the picture is to be filled in, and none is given")
        if not mask.any():
            raise Problem("nothing is masked: the mask is white where the picture is to be filled in, and it is all black")
        if self.resamples > 1 and self.jump >= len(steps):
            raise Problem(
                f"jump is {self.jump}: of {len(steps)} steps, at most {len(steps) - 1} can be gone back (or give resamples 1)"
            )
