"""Codecs: the conversion between data and the values a model is trained on."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from lodestar.config import Config


class Coder(nn.Module, abc.ABC):
    """A built codec; weights, if any, are kept with the model's."""

    @abc.abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Encoded data [B, …], float32, as used in training."""

    @abc.abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """Data decoded from a model's output."""

    def centre(self, data: Tensor) -> Tensor:
        """Data encoded at the middle of `decode`'s bins, so decoding returns the same values."""
        return self.encode(data)


class Codec(Config, abc.ABC):
    """The conversion between data and the values a model is trained on."""

    kind: str

    @property
    def limit(self) -> float | None:
        """The largest encoded value, to which x̂₀ is clamped; None if unbounded."""
        return None

    @abc.abstractmethod
    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a datum, from the shape of its encoding."""

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of an encoding, from the shape of a datum. Raises Problem for data that the codec does not know."""
        return shape

    @abc.abstractmethod
    def build(self) -> Coder:
        """The coder."""
