"""What every loss is given, and what it gives back."""

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
    """One training draw: x = α·x0 + σ·eps at a level of each sample's own."""

    x0: Tensor
    """Clean data [B, ...]."""
    eps: Tensor
    """The noise [B, ...]."""
    level: Level
    """[B]."""
    x: Tensor
    """The noisy data [B, ...]."""


@dataclass(frozen=True, slots=True)
class Losses:
    """A loss per sample, and the terms it is made of for the log."""

    total: Tensor
    """[B]"""
    terms: Mapping[str, Tensor] = field(default_factory=dict)
    """Each [B], detached."""
    noted: Mapping[str, Tensor] = field(default_factory=dict)
    """What a task wants back of the whole batch once the step is done, each [B], detached."""


class Objective(Config, abc.ABC):
    """A loss of a denoiser's output."""

    kind: str

    @property
    def stepwise(self) -> bool:
        """Whether it grades a step of the chain, and so knows the chain's own levels alone."""
        return False

    @abc.abstractmethod
    def check(self, learned: bool) -> None:
        """Raise Problem unless the loss means something for a denoiser that learns its variance, or that does not."""

    @abc.abstractmethod
    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        """Loss of an output at a draw; its gradient flows into `output`."""


def mean_flat(values: Tensor) -> Tensor:
    """Mean over all but the first dimension."""
    return values.flatten(1).mean(dim=1)
