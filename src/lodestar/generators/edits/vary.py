"""Variations of a picture (Ramesh et al. 2022, section 3.1): its noise, by DDIM's inversion, sampled again with noise on the way.

A decoder is told the picture's embedding both ways, so that what the embedding tells is kept, and other details are drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import EditJob, Sourced
from lodestar.generators.edits.invert import Invert
from lodestar.samplers import DDIM, Sampler, State
from lodestar.samplers.inversion import invert


class Vary(Invert):
    """Samples a picture again from its own noise, with fresh noise on the way."""

    kind: Literal["vary"] = "vary"  # type: ignore[assignment]
    eta: float = Field(default=1.0, ge=0, le=1)
    """DDIM's η on the way down: 0 gives the picture back, 1 is ancestral."""

    @property
    def usual(self) -> Sampler:
        return DDIM()

    def draws(self, pictures: int) -> bool:
        return self.eta > 0

    def states(self, job: EditJob) -> Iterator[State]:
        request, steps, sampler = job.request, job.steps, job.sampler
        assert isinstance(sampler, DDIM)
        upwards = job.denoise([request.origins[source] for source in request.sources], self.guided)
        for state in invert(sampler.replace(eta=0.0), upwards, job.sources, steps, job.noise):
            yield state
        for down in sampler.replace(eta=self.eta)(job.denoise(request.asks), state.x, steps, job.noise):
            yield State(down.x, down.estimate, len(steps) + down.index)

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        if not isinstance(sampler, DDIM) or sampler.eta:
            raise Problem(f"sampler {sampler.kind}: variations are DDIM's, and η is a setting of the edit: leave the sampler out")
        super().check(request, sampler, steps, mask)
