"""The codec of a CLIP's embeddings: whitened, each channel of mean 0 and deviation 1 over the training data."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs.base import Codec, Coder
from lodestar.config import Channels

Space = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""Identity of a space of embeddings: the SHA-256 of the CLIP's file, as `lodestar info` shows it."""


class Embeddings(Codec):
    """Embeddings of pictures by a CLIP, as data [B, D, 1, 1]."""

    kind: Literal["embeddings"] = "embeddings"
    embed: Channels = 512
    """Channels of an embedding."""
    largest: float = Field(default=10.0, gt=0, le=1e6)
    """Largest whitened value, to which x̂₀ is clamped (Karlo's)."""
    space: Space | None = None
    """CLIP of the embeddings; None if not known."""

    @property
    def limit(self) -> float | None:
        return self.largest

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return shape

    def build(self) -> Whitening:
        return Whitening(self)


class Whitening(Coder):
    """The coder of `Embeddings`; mean and deviation are kept with the model's weights."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: Embeddings) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("mean", torch.zeros(config.embed))
        self.register_buffer("std", torch.ones(config.embed))

    def encode(self, data: Tensor) -> Tensor:
        """Whitened embeddings [B, D, 1, 1], of embeddings [B, D, 1, 1]."""
        return (data.float() - self.mean[:, None, None]) / self.std[:, None, None]

    def decode(self, x: Tensor) -> Tensor:
        return x * self.std[:, None, None] + self.mean[:, None, None]
