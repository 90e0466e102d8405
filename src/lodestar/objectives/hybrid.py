"""Improved DDPM's hybrid loss, L_simple + λ·L_vlb, which trains the variance and leaves the mean to L_simple (equation 16)."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from lodestar.config import Problem
from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule
from lodestar.objectives.base import Draw, Losses, Objective
from lodestar.objectives.bound import bound_term
from lodestar.objectives.huber import Huber
from lodestar.objectives.l1 import L1
from lodestar.objectives.simple import Simple


class Hybrid(Objective):
    """A loss of the mean, plus the bound's term at the drawn level with the mean held fixed.

    `vlb_weight` multiplies the single term, so λ = vlb_weight/T: the paper's λ = 0.001 is 1 for T = 1000 and 4 for T = 4000.
    """

    kind: Literal["hybrid"] = "hybrid"
    vlb_weight: float = Field(default=1.0, gt=0, le=1e6)
    rescaled: bool = False
    """Multiply the term by T/1000 too, so λ is 0.001·vlb_weight for every T (the published "rescaled MSE")."""
    mean: Annotated[Simple | L1 | Huber, Field(discriminator="kind")] = Simple()
    """The loss of the mean."""

    @property
    def stepwise(self) -> bool:
        return True

    def check(self, learned: bool) -> None:
        if not learned:
            raise Problem(
                "objective 'hybrid' trains a learned variance, and this denoiser has none: set variance='learned_range'"
            )

    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        assert output.frac is not None or output.logvar is not None, "see `check`"
        mean = self.mean(draw, output, prediction, schedule)
        estimate = output.with_fixed_mean().estimate(draw.x, draw.level, prediction)
        term = bound_term(schedule.step_down(draw.level), estimate, draw.x0)
        weight = self.vlb_weight * (schedule.timesteps / 1000 if self.rescaled else 1.0)
        return Losses(mean.total + weight * term, {**mean.terms, "vb": term.detach()})
