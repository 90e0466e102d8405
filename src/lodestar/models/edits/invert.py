"""Inversion and re-synthesis (DDIM, Song et al. 2021, section 4.3; between two models, DDIB, Su et al. 2023).

A picture is encoded as the noise that a deterministic sampler would have made it of, under the label that it has, and sampled
again from that noise under the label that it is to have.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Literal

from torch import Tensor

from lodestar.core.transition import Transition
from lodestar.models.edits.base import Batch, Edit
from lodestar.samplers import AnySampler, State
from lodestar.samplers.inversion import check_invertible, invert

if TYPE_CHECKING:
    from lodestar.models.editing import EditRequest


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

    def states(self, batch: Batch) -> Iterator[State]:
        request, steps = batch.request, batch.steps
        upwards = batch.denoise([request.origins[source] for source in request.sources], self.guided)
        for state in invert(batch.sampler, upwards, batch.sources, steps, batch.noise):
            yield state
        for down in batch.sampler(batch.denoise(request.labels), state.x, steps, batch.noise):
            yield State(down.x, down.estimate, len(steps) + down.index)

    def check(self, request: EditRequest, sampler: AnySampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        check_invertible(sampler, steps)
