"""Regression losses: element-wise distances between the network's output and its target."""

from __future__ import annotations

import abc

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule
from lodestar.objectives.base import Draw, Losses, Objective, mean_flat
from lodestar.objectives.weighting import AnyWeighting


class Regression(Objective, abc.ABC):
    """The mean distance between output and target. Does not train a learned variance, for which `Hybrid` adds a term."""

    weighting: AnyWeighting | None = None
    """Weights of levels, or None for uniform weights, defined for squared errors and used with every distance."""

    @property
    @abc.abstractmethod
    def name(self) -> str:
        """Name of the distance in the log."""

    @abc.abstractmethod
    def distance(self, difference: Tensor) -> Tensor:
        """The distance for each value; its minimum is 0, at 0."""

    def distances(self, draw: Draw, output: Output, prediction: Prediction) -> Tensor:
        """Distances of output and target, [B, ...]."""
        return self.distance(prediction.target(draw.x0, draw.eps, draw.level) - output.value)

    def check(self, learned: bool) -> None:
        if learned:
            raise Problem(
                f"objective {self.kind!r} teaches nothing to the variance that this denoiser learns: "
                "take 'hybrid' or 'bound', or set variance='fixed'"
            )

    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        mean = mean_flat(self.distances(draw, output, prediction))
        total = mean if self.weighting is None else self.weighting(draw.level, prediction).to(mean) * mean
        return Losses(total, {self.name: mean.detach()})
