"""The simple loss: mean squared error of the network's prediction (DDPM, equation 14)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lodestar.objectives.regression import Regression


class Simple(Regression):
    """Squared error against the prediction's target."""

    kind: Literal["simple"] = "simple"

    @property
    def name(self) -> str:
        return "mse"

    def distance(self, difference: Tensor) -> Tensor:
        return difference**2
