"""Inversion and re-synthesis (DDIM, Song et al. 2021, section 4.3; between two models, DDIB, Su et al. 2023).

A picture is encoded as noise by a deterministic sampler run upwards under its own label, and sampled again from that noise under
the new label.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.samplers import Sampler, State
from lodestar.samplers.inversion import check_invertible, invert


class Invert(Edit):
    """Samples a picture again from its own noise."""

    kind: Literal["invert"] = "invert"
    guided: bool = False
    """Guide on the way up too. Guided steps are much harder to undo."""

    @property
    def inverts(self) -> bool:
        return True

    def draws(self, pictures: int) -> bool:
        return False

    def length(self, steps: Sequence[Transition]) -> int:
        return 2 * len(steps)

    def states(self, job: EditJob) -> Iterator[State]:
        request, steps = job.request, job.steps
        upwards = job.denoise([request.origins[source] for source in request.sources], self.guided)
        for state in invert(job.sampler, upwards, job.sources, steps, job.noise):
            yield state
        for down in job.sampler(job.denoise(request.asks), state.x, steps, job.noise):
            yield State(down.x, down.estimate, len(steps) + down.index)

    def check_asks(self, request: Sourced) -> None:
        super().check_asks(request)
        if len(request.origins) != len(request.pictures):
            raise Problem(
                f"{len(request.origins)} origins are given for {len(request.pictures)} pictures: invert needs one of each"
            )

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        check_invertible(sampler, steps)
