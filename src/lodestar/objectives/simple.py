"""The simple loss: mean squared error of whatever the network predicts (DDPM, equation 14)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule
from lodestar.objectives.base import Draw, Losses, Objective, mean_flat


def squared_error(draw: Draw, output: Output, prediction: Prediction) -> Tensor:
    """(target − output)², [B, ...]."""
    return (prediction.target(draw.x0, draw.eps, draw.level) - output.value) ** 2


class Simple(Objective):
    """Unweighted squared error against the prediction's target."""

    kind: Literal["simple"] = "simple"

    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        mse = mean_flat(squared_error(draw, output, prediction))
        return Losses(mse, {"mse": mse.detach()})
