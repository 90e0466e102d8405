"""What a training problem is: modules, phases of losses on a batch, and what to show and to save of them."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Self

import torch
from torch import Tensor, nn

from lodestar.config import Config, Problem
from lodestar.data.batch import Batch, DataFacts
from lodestar.nets.base import NetworkConfig
from lodestar.objectives import Losses
from lodestar.tasks.optimizer import OptimizerConfig
from lodestar.tasks.rng import Rng


@dataclass(frozen=True, eq=False)
class Phase:
    """One optimizer's work: a loss, and what it moves."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Rng], Losses]
    """Per-sample losses of a piece of a batch. All randomness comes from what it is given, and from dropout layers."""
    note: Callable[[Mapping[str, Tensor]], None] | None = None
    """Is given the losses' `noted` of the whole batch, in the order of its pictures, once a step is done that was not skipped."""
    optimizer: OptimizerConfig | None = None
    """Settings of its own; None: those of the run."""
    every: int = 1
    """The phase has its turn in every so-manieth step, from the first on."""


@dataclass(frozen=True)
class Export:
    """A trained module that is saved as a model."""

    module: nn.Module
    kind: str
    config: str
    """Configuration, JSON."""


@dataclass(frozen=True)
class Frozen:
    """A module that is needed and not trained, whose weights come from a model's file."""

    module: nn.Module
    kind: str
    """What the file must hold."""
    digest: str | None = None
    """SHA-256 that the file must have, as `lodestar info` shows it; None: any."""


class Learner(abc.ABC):
    """A task made concrete: modules on a device, and what can be asked of them."""

    module: nn.Module
    """Everything that is trained."""
    frozen: Mapping[str, Frozen] = MappingProxyType({})
    """What is not, by the name of the model (`lodestar.library.find`) whose weights it takes."""

    @abc.abstractmethod
    def phases(self) -> list[Phase]:
        """The losses, in the order in which they run in every step."""

    def memory(self) -> Mapping[str, Tensor]:
        """What else a resumed run needs, by name: tensors that change in place as it goes, when a phase takes note."""
        return {}

    @abc.abstractmethod
    def exports(self) -> Mapping[str, Export]:
        """The models that are made, by the names of their files: parts of `module`, of which averages are kept.

        One is called "model": the run's folder stands for it.
        """

    @abc.abstractmethod
    def compile(self) -> None:
        """Compile the networks, in place."""

    def check(self) -> None:
        """Raise Problem where `preview` would, before any work."""
        return

    def preview(self) -> Tensor | None:
        """uint8 pictures [N, C, H, W] that show how far the module's present weights are; None where there is nothing to see."""
        return None

    def validate(self, batches: Callable[[], Any]) -> Mapping[str, float]:
        """Numbers on held-out batches (each call of `batches` gives a fresh pass over them)."""
        return {}


class Task(Config, abc.ABC):
    """A training problem."""

    kind: str

    @property
    def conditions(self) -> bool:
        """Whether it needs the classes of its pictures."""
        return True

    @abc.abstractmethod
    def resolve(self, facts: DataFacts) -> Self:
        """The task with what the data decides (sizes, channels, classes) filled in. Raises Problem where they cannot fit."""

    @abc.abstractmethod
    def build(self, device: torch.device, dtype: torch.dtype) -> Learner:
        """The modules on a device, their torso computing in `dtype`."""


def check_size(size: tuple[int, int], network: NetworkConfig) -> None:
    """Raise Problem unless a network can look at the data's pictures, which are of this size."""
    try:
        network.check_size(size)
    except Problem as problem:
        raise Problem(f"the pictures' {problem}; resize them with data.transforms.size") from None
