"""Conditions: read from asks and from data, encoded for a network, with a null for unconditional sampling."""

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
    """The part of a denoiser that encodes one condition as signals."""

    @abc.abstractmethod
    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of given values [B, …], as read by the condition. keep: bool [B], False where a sample loses the
        condition."""

    @abc.abstractmethod
    def null(self, count: int) -> Signals:
        """The signals of the null condition, for `count` samples. Not called for a condition without a null."""


class Condition(Config, abc.ABC):
    """A modality of conditioning. Its kind is its name, in asks, in batches and among the denoiser's parameters."""

    kind: str

    @property
    def optional(self) -> bool:
        """True if a sample may be without the condition."""
        return True

    def planes(self, channels: int) -> int:
        """Number of planes beside x at the network's input, for data of `channels` channels."""
        return 0

    @property
    def told(self) -> int | None:
        """Width of the condition's tokens, to which a network attends; None for a condition without tokens."""
        return None

    @abc.abstractmethod
    def build(self, width: int) -> Encoder:
        """The encoder, for embeddings of this width."""

    @abc.abstractmethod
    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        """Values of each ask [B, …], on the CPU, and a mask of the asks with a value: bool [B], None for all."""

    @abc.abstractmethod
    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        """Values of a batch of data [B, …]; x0: its pictures as the model sees them, float32 [B, C, H, W]."""
