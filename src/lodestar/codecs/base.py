"""What a codec is: the way between data and what a model is trained on."""

from __future__ import annotations

import abc

from torch import Tensor, nn

from lodestar.config import Config


class Coder(nn.Module, abc.ABC):
    """A codec made concrete; it may have weights, which are kept with the model's."""

    @abc.abstractmethod
    def encode(self, data: Tensor) -> Tensor:
        """Data [B, …] as the model is trained on them, float32."""

    @abc.abstractmethod
    def decode(self, x: Tensor) -> Tensor:
        """What a model has made, as data."""

    def centre(self, data: Tensor) -> Tensor:
        """Data as the middle of what `decode` makes of them, so that they come back as they were."""
        return self.encode(data)


class Codec(Config, abc.ABC):
    """The way between data and what a model is trained on."""

    kind: str

    @property
    def limit(self) -> float | None:
        """The largest value that encoded data have, to which x̂₀ is clamped; None where they have none."""
        return None

    @abc.abstractmethod
    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of a datum, for that of the encoded one."""

    @abc.abstractmethod
    def build(self) -> Coder:
        """The coder."""
