"""The input and output of every loss."""

from __future__ import annotations

import abc
from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

from lodestar.config import Config
from lodestar.core.level import Level
from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule


@dataclass(frozen=True, slots=True)
class Draw:
    """A training sample x = α·x0 + σ·eps, at a level of its own."""

    x0: Tensor
    """Clean data [B, ...]."""
    eps: Tensor
    """The noise [B, ...]."""
    level: Level
    """The levels [B]."""
    x: Tensor
    """The noisy data [B, ...]."""


@dataclass(frozen=True, slots=True)
class Losses:
    """A loss per sample, and its terms for the log."""

    total: Tensor
    """The loss [B]."""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Terms of the loss, each [B], detached."""
    noted: Mapping[str, Tensor] = field(default_factory=dict)
    """Values of the whole batch returned to the task after the step (`Phase.note`), each [B], detached."""


class Objective(Config, abc.ABC):
    """A loss of a denoiser's output."""

    kind: str

    @property
    def stepwise(self) -> bool:
        """True if the loss is of a step of the chain, and so is defined at the chain's own levels alone."""
        return False

    @abc.abstractmethod
    def check(self, learned: bool) -> None:
        """Raise Problem unless the loss is meaningful for a denoiser with a learned variance (or without)."""

    @abc.abstractmethod
    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        """The loss of an output at a draw; its gradient flows into `output`."""


def mean_flat(values: Tensor) -> Tensor:
    """Mean over all but the first dimension."""
    return values.flatten(1).mean(dim=1)
