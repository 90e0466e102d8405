"""Huber's loss of the network's prediction: squared for small errors, absolute for large ones (Huber 1964)."""

from __future__ import annotations

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.objectives.regression import Regression


class Huber(Regression):
    """Huber's loss: ½·e² up to |e| = delta, delta·(|e| − ½·delta) beyond, for less weight on outliers."""

    kind: Literal["huber"] = "huber"
    delta: float = Field(default=1.0, gt=0, le=1e6)

    @property
    def name(self) -> str:
        return "huber"

    def distance(self, difference: Tensor) -> Tensor:
        return torch.nn.functional.huber_loss(difference, torch.zeros_like(difference), reduction="none", delta=self.delta)
