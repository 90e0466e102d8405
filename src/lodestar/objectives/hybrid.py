"""Improved DDPM's hybrid loss, L_simple + λ·L_vlb, which trains the variance and leaves the mean to L_simple (equation 16)."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from lodestar.config import Problem
from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule
from lodestar.objectives.base import Draw, Losses, Objective
from lodestar.objectives.bound import bound_term
from lodestar.objectives.simple import Simple


class Hybrid(Objective):
    """Squared error, plus the bound's term at the drawn level with the mean held fixed.

    `vlb_weight` multiplies the single term, so λ = vlb_weight/T. The paper's λ = 0.001 is 1 for T = 1000 and 4 for T = 4000.
    """

    kind: Literal["hybrid"] = "hybrid"
    vlb_weight: float = Field(default=1.0, gt=0)

    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        if output.frac is None and output.logvar is None:
            raise Problem(
                "objective 'hybrid' trains a learned variance, and this denoiser has none: set variance='learned_range'"
            )
        simple = Simple()(draw, output, prediction, schedule)
        estimate = output.with_fixed_mean().estimate(draw.x, draw.level, prediction)
        term = bound_term(schedule.step_down(draw.level), estimate, draw.x0)
        return Losses(simple.total + self.vlb_weight * term, {**simple.terms, "vb": term.detach()})
