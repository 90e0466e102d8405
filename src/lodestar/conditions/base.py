"""What a condition is: how it is read from what is asked and from data, what a network makes of it, and what its null is."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from lodestar.conditions.ask import Ask
from lodestar.conditions.signals import Signals
from lodestar.config import Config

Fields = Mapping[str, Tensor | tuple[str, ...]]
"""A batch of data by the names of its fields: image uint8 [B, C, H, W], label int64 [B], texts and so on."""


class Encoder(nn.Module, abc.ABC):
    """The part of a denoiser that makes signals of one condition."""

    @abc.abstractmethod
    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """given: [B, …], as the condition reads it. keep: bool [B], False where a sample loses the condition."""

    @abc.abstractmethod
    def null(self, count: int) -> Signals:
        """What stands for nothing in particular, for `count` samples. A condition that has no null is never asked."""


class Condition(Config, abc.ABC):
    """A modality that a denoiser is told of. Its kind is its name, in asks, in batches and among the denoiser's parameters."""

    kind: str

    @property
    def optional(self) -> bool:
        """Whether a sample may be without it."""
        return True

    def planes(self, channels: int) -> int:
        """How many planes the network sees beside x, for data of so many channels."""
        return 0

    @abc.abstractmethod
    def build(self, width: int) -> Encoder:
        """The encoder, for embeddings of this width."""

    @abc.abstractmethod
    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        """What is asked of each picture [B, …], on the CPU, and who is asked at all: bool [B], None for all."""

    @abc.abstractmethod
    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        """What a batch of data tells [B, …]; x0: its pictures as the model sees them, float32 [B, C, H, W]."""
