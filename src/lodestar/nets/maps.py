"""Networks over maps of codes in raster order: they give every code's logits, given the codes before it."""

from __future__ import annotations

import abc
from collections.abc import Generator
from typing import Annotated, ClassVar, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem, Side
from lodestar.nets.base import Network
from lodestar.nets.causal import telling
from lodestar.nets.codebook import Codes

Depth = Annotated[int, Field(ge=0, le=100)]
"""Number of layers or blocks."""
Kernel = Annotated[int, Field(ge=1, le=63)]
"""Height and width of a convolution."""
Walk = Generator[Tensor, Tensor, None]
"""A map made place by place: yields the logits float32 [B, K] of the next code, and is sent the codes int64 [B] chosen there."""


class MapConfig(Config, abc.ABC):
    """A network over a map of codes."""

    silent: ClassVar[tuple[str, ...]] = ()
    """Fields that weights do not tell."""

    kind: str
    size: tuple[Side, Side] = (8, 8)
    """Height and width of the map of codes."""
    codes: Codes = 512
    width: Channels = 64
    told: Channels | None = None
    """Channels of the features of conditions (classes, a text's vector, coarser codes); None for a network that is told none."""
    coarser: bool = False
    """True for a network that is told a map of coarser codes, half as large."""
    told_kernel: Kernel = 3
    told_blocks: Depth = 1

    @model_validator(mode="after")
    def _told(self) -> Self:
        if not self.told_kernel % 2:
            raise Problem(f"told_kernel is {self.told_kernel}: it is odd")
        if self.coarser and (self.told is None or any(side % 2 for side in self.size)):
            raise Problem(f"size is {self.size[0]}×{self.size[1]}, told {self.told}: coarser codes are half as large, and told")
        return self

    @property
    def summary(self) -> str:
        """The network in a few words, for a person."""
        return f"{self.kind} of {self.size[0]}×{self.size[1]} codes of {self.codes:,}, width {self.width}"

    @property
    def emb_width(self) -> int:
        """Channels of the features of conditions, for a network that is told some."""
        return self.told or self.width

    def fitted(self, size: tuple[int, int], codes: int, conditional: bool, coarser: bool, states: int | None) -> Self:
        """The network for a map of this size and number of codes.

        conditional: told a vector of classes or texts. coarser: told coarser codes. states: width of the states of a text; None
        without. Networks that attend to no text leave its states out, and are told its vector.
        """
        told = self.emb_width if conditional or coarser else None
        return self.replace(size=size, codes=codes, told=told, coarser=coarser)

    def telling(self) -> nn.Sequential | None:
        """The network of coarser codes; None for a network that is told none."""
        if not self.coarser:
            return None
        assert self.told is not None
        return telling(self.codes, self.told, self.told_kernel, self.told_blocks)

    @abc.abstractmethod
    def build(self) -> MapNetwork:
        """The network, its weights random."""


class MapNetwork(Network):
    """A network over a map of codes."""

    config: MapConfig
    told: nn.Sequential | None
    """The network of coarser codes; None for a network that is told none."""

    @abc.abstractmethod
    def forward(
        self, codes: Tensor, told: Tensor | None = None, tokens: Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Logits float32 [B, K, h, W] of codes int64 [B, h, W], the first rows of a map or all, each given those before it.

        told: features of conditions [B, told, H, W] or [B, told, 1, 1]. tokens: states of a text [B, L, states].
        """

    @abc.abstractmethod
    def walk(self, count: int, told: Tensor | None = None, tokens: Tensor | None = None) -> Walk:
        """A walk over `count` maps, in float32, which keeps all that later places need of earlier ones; see `forward`."""

    def retrace(self, count: int, told: Tensor | None = None, tokens: Tensor | None = None) -> Walk:
        """A walk that keeps nothing, and computes all rows up to a place again for it."""
        height, width = self.config.size
        codes = torch.zeros(count, height, width, dtype=torch.int64, device=next(self.parameters()).device)
        for row in range(height):
            for column in range(width):
                codes[:, row, column] = yield self(codes[:, : row + 1], told, tokens)[:, :, row, column]

    def tell(self, coarser: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Features [B, told, H, W] of coarser codes int64 [B, H/2, W/2]."""
        assert self.told is not None, "this network is told no coarser codes"
        features: Tensor = self.told(self.spread(coarser, dtype))
        return F.interpolate(features, scale_factor=2.0, mode="nearest")

    def spread(self, codes: Tensor, dtype: torch.dtype) -> Tensor:
        """Codes [B, h, w] as one-hot [B, K, h, w]."""
        return F.one_hot(codes, self.config.codes).movedim(-1, 1).to(dtype)

    def lower(self, dtype: torch.dtype) -> None:
        """Leave the weights as they are: a rounding error may change a code that is drawn, and all codes after."""
