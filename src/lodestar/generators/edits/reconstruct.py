"""Reconstruction: a picture encoded and decoded again, by an autoencoder or by a diffusion model's codec."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Estimate
from lodestar.core.level import CLEAN
from lodestar.core.transition import Transition
from lodestar.generators.edits.base import Edit, EditJob, Sourced
from lodestar.samplers import Sampler, State


class Reconstruct(Edit):
    """Encodes and decodes each picture."""

    kind: Literal["reconstruct"] = "reconstruct"
    level: Literal["bottom", "middle", "top"] | None = None
    """Finest level of codes to decode, of a model with several; None: all of them."""

    def draws(self, pictures: int) -> bool:
        return False

    def length(self, steps: Sequence[Transition]) -> int:
        return 1

    def states(self, job: EditJob) -> Iterator[State]:
        x = job.sources  # as the codec encodes them; a frame decodes
        yield State(x, Estimate(x, CLEAN, x), 0)

    def check(self, request: Sourced, sampler: Sampler, steps: Sequence[Transition], mask: Tensor | None) -> None:
        super().check(request, sampler, steps, mask)
        request.settings.check_effective(self.kind, "pictures are encoded and decoded, and nothing is sampled")
        if any(ask.label is not None or ask.text is not None for ask in request.asks):
            raise Problem(f"labels and prompts have no effect on {self.kind}: leave them out")
        if self.level is not None:
            raise Problem(f"level {self.level!r}: a diffusion model has no levels of codes")
