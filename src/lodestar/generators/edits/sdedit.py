"""SDEdit (Meng et al. 2022): noise a picture part of the way, and sample from there. What is coarser than the noise stays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.generators.guided import check_intervals
from lodestar.samplers import Sampler, State


class SDEdit(Edit):
    """Starts from the noised picture."""

    kind: Literal["sdedit"] = "sdedit"
    strength: float = Field(default=0.5, gt=0, le=1)
    """The part of the steps that is taken, the last ones and at least one: t₀ of the paper where the steps are even in time.
    Near 0 the picture comes back; 1 is all the steps from noise alone, which ignores it."""

    @property
    def reuses(self) -> bool:
        return True

    def length(self, steps: Sequence[Transition]) -> int:
        return max(round(self.strength * len(steps)), 1)

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        taken = steps[-self.length(steps) :]
        check_intervals(request.settings.guidance, sampler, taken, f"the {len(taken)} that strength {self.strength:g} takes")

    def states(self, job: EditJob) -> Iterator[State]:
        steps = job.steps[-self.length(job.steps) :]
        if self.strength < 1:
            x = job.guided.model.config.schedule.forward(job.sources, steps[0].t, job.noise(job.sources))
        else:
            x = job.start()
        yield from job.sampler(job.denoise(job.request.asks), x, steps, job.noise)
