"""Networks of pictures as codes: an encoder, one codebook or several, and a decoder."""

from __future__ import annotations

import abc
from collections.abc import Sequence

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Problem
from lodestar.nets.base import Network, NetworkConfig
from lodestar.nets.codebook import Codebook, CodebookConfig, Coded

LEVELS = 3
"""Largest number of levels."""
NAMES: dict[int, tuple[str, ...]] = {1: ("bottom",), 2: ("bottom", "top"), 3: ("bottom", "middle", "top")}
"""Names of the levels of codes by their number, from the finest."""


class CodedConfig(NetworkConfig):
    """A network of pictures as codes."""

    levels: int = Field(default=1, ge=1, le=LEVELS)
    """Number of levels of codes."""
    book: CodebookConfig = CodebookConfig()
    """Codebook of every level."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the levels, from the finest."""
        return NAMES[self.levels]

    def shapes(self, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
        """Height and width of each level's map of codes, for pictures of a size; each is half as large as the one below."""
        finest = self.divisor >> (self.levels - 1)
        return tuple((size[0] // factor, size[1] // factor) for factor in (finest << level for level in range(self.levels)))

    def level(self, name: str) -> int:
        """The number of a level by its name. Raises Problem."""
        if name not in self.names:
            raise Problem(f"level {name!r}: choose from {', '.join(self.names)}")
        return self.names.index(name)

    @abc.abstractmethod
    def build(self) -> CodedNetwork:
        """The network, its weights random."""


class CodedNetwork(Network):
    """A network of pictures as codes."""

    @abc.abstractmethod
    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> list[tuple[Coded, Tensor]]:
        """Codes by level, and the vectors float32 [B, D, h, w] for which they stand. dtype: the torso's (default: x's)."""

    @abc.abstractmethod
    def decode(self, values: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        """Pictures float32 [B, C, H, W] of the codes' vectors by level [B, D, h, w]."""

    @abc.abstractmethod
    def book(self, level: int) -> Codebook:
        """The codebook of a level."""

    def look_up(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """The vectors by level [B, D, h, w] of codes int64 [B, h, w]."""
        return [self.book(level).look_up(numbers) for level, numbers in enumerate(codes)]
