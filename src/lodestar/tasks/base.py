"""Training tasks: modules, phases of losses on a batch, previews and exported models."""

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

PREVIEWS = 40
"""Number of pictures in a sample grid."""
BUCKETS = 4
"""Number of equal parts of the chain with separate numbers of a validation."""


@dataclass(frozen=True, eq=False)
class Coupled:
    """A loss that couples the samples of a batch.

    Each sample is encoded by itself, so that pieces and processes can share the work, and all are graded together. With several
    pieces the gradient takes two passes of each (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory
    Limited Setup").
    """

    encode: Callable[[Batch, Rng], Tensor]
    """Codes [n, D] of a piece of a batch. All randomness is from the given Rng, and from dropout layers."""
    grade: Callable[[Tensor], Losses]
    """Per-sample losses [B] of the codes [B, D] of the whole batch."""


@dataclass(frozen=True, eq=False)
class Phase:
    """A phase of a training step: a loss, its parameters and their optimizer."""

    name: str
    parameters: Sequence[nn.Parameter]
    loss: Callable[[Batch, Rng], Losses] | Coupled
    """Per-sample losses of a piece of a batch. All randomness is from the given Rng, and from dropout layers."""
    note: Callable[[Mapping[str, Tensor]], None] | None = None
    """Callback after a step that was not skipped, given the losses' `noted` of the whole batch, in the order of its pictures."""
    optimizer: OptimizerConfig | None = None
    """The phase's optimizer; None is the run's."""
    every: int = 1
    """Interval of the phase's turns in steps, beginning with the first."""


@dataclass(frozen=True)
class Export:
    """A trained module to be saved as a model."""

    module: nn.Module
    kind: str
    config: str
    """Configuration of the model, JSON."""


@dataclass(frozen=True)
class Frozen:
    """A module used but not trained, with weights from a model's file."""

    module: nn.Module
    kind: str
    """Required kind of the file."""
    digest: str | None = None
    """Required SHA-256 of the file, as `lodestar info` shows it; None: any."""


class Learner(abc.ABC):
    """A built task: modules on a device, with their losses and models."""

    module: nn.Module
    """All trained modules."""
    frozen: Mapping[str, Frozen] = MappingProxyType({})
    """Modules not trained, by the name of the model (`lodestar.library.find`) for their weights."""

    @abc.abstractmethod
    def phases(self) -> list[Phase]:
        """The phases, in the order of every step."""

    def memory(self) -> Mapping[str, Tensor]:
        """Further state of a run, by name: tensors changed in place when a phase takes note."""
        return {}

    def begin(self, facts: DataFacts | None = None) -> None:
        """Set the first weights of a run that depend on frozen modules, which are filled by now, or on facts of the data."""
        return

    @abc.abstractmethod
    def exports(self) -> Mapping[str, Export]:
        """The models to be saved, by file name: parts of `module`, whose averages are kept.

        The one called "model" is that of the run's folder.
        """

    @abc.abstractmethod
    def compile(self) -> None:
        """Compile the networks in place."""

    def check(self) -> None:
        """Raise Problem where `preview` would, before any work."""
        return

    def preview(self) -> Tensor | None:
        """Pictures uint8 [N, C, H, W] from the module's present weights; None if there is nothing to see."""
        return None

    def validate(self, batches: Callable[[], Any]) -> Mapping[str, float]:
        """Metrics on held-out batches; each call of `batches` gives a fresh pass."""
        return {}


class Task(Config, abc.ABC):
    """A training task."""

    kind: str

    @property
    def conditions(self) -> bool:
        """True if the classes of the pictures are needed."""
        return True

    @property
    def captions(self) -> bool:
        """True if the captions of the pictures are needed."""
        return False

    @abc.abstractmethod
    def resolve(self, facts: DataFacts) -> Self:
        """The task completed by facts of the data (sizes, channels, classes). Raises Problem if they do not fit."""

    @abc.abstractmethod
    def build(self, device: torch.device, dtype: torch.dtype) -> Learner:
        """The learner on a device, its torso computing in `dtype`."""


def check_learns(network: NetworkConfig) -> None:
    """Raise Problem for a network that is read from published files alone."""
    if not network.learns:
        raise Problem(f"task.model.network is of kind {network.kind!r}, which is read from files and not trained")


def check_size(size: tuple[int, int], network: NetworkConfig) -> None:
    """Raise Problem unless a network can look at the data's pictures, which are of this size."""
    try:
        network.check_size(size)
    except Problem as problem:
        raise Problem(f"the pictures' {problem}; resize them with data.transforms.size") from None
