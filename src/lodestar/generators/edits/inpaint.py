"""Inpainting: RePaint (Lugmayr et al. 2022) with a model of whole pictures, plain sampling with a model trained to inpaint.

The known part is pasted after every step either way, and comes out unchanged.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, Self

from pydantic import Field
from torch import Tensor

from lodestar.conditions.masked import known
from lodestar.config import TIMESTEPS, Problem
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.models.diffusion import DiffusionConfig
from lodestar.samplers import Ancestral, Sampler, State
from lodestar.samplers.repaint import repaint, walk

_PAPER = 10


class Inpaint(Edit):
    """Makes the places anew that have any white in a mask, and keeps the others as they are."""

    kind: Literal["inpaint"] = "inpaint"
    resamples: int | None = Field(default=None, ge=1, le=1_000)
    """r, how often each stretch is gone down; 1 is never to go back, and only to paste. None: 1 for a model that was trained to
    inpaint, and the paper's 10 for others."""
    jump: int = Field(default=10, ge=1, le=TIMESTEPS)
    """j, how many steps long a stretch is."""

    @property
    def usual(self) -> Sampler:
        """The paper's."""
        return Ancestral()

    @property
    def often(self) -> int:
        """r."""
        return _PAPER if self.resamples is None else self.resamples

    def settled(self, model: DiffusionConfig) -> Self:
        trained = model.denoiser.condition("masked") is not None
        return self if self.resamples is not None else self.replace(resamples=1 if trained else _PAPER)

    def length(self, steps: Sequence[Transition]) -> int:
        return sum(1 for _ in walk(steps, self.jump, self.often))

    def states(self, job: EditJob) -> Iterator[State]:
        assert job.mask is not None
        mask = job.mask
        if job.guided.model.config.denoiser.condition("masked") is not None:
            job = replace(job, handed={**job.handed, "masked": known(job.sources, mask)})
        yield from repaint(
            job.sampler, job.denoise(job.request.asks), job.start(), job.steps, job.noise,
            job.sources, mask, self.jump, self.often,
        )  # fmt: skip

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        if mask is None:
            raise Problem("inpaint needs a mask, white where the picture is to be filled in, and none is given")
        if not mask.any():
            raise Problem("nothing is masked: the mask is to be True where the picture is to be filled in, and is so nowhere")
        if self.often > 1 and self.jump >= len(steps):
            raise Problem(
                f"jump is {self.jump}: of {len(steps)} steps, at most {len(steps) - 1} can be gone back (or give resamples 1)"
            )
