"""The mean absolute error of the network's prediction: sharper and less diverse pictures (Palette: Saharia et al. 2022)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from lodestar.objectives.regression import Regression


class L1(Regression):
    """Absolute error against the prediction's target. The optimal output is a median, not the mean expected by samplers."""

    kind: Literal["l1"] = "l1"

    @property
    def name(self) -> str:
        return "l1"

    def distance(self, difference: Tensor) -> Tensor:
        return difference.abs()
