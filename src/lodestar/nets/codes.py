"""The autoregressive prior's transformer: codes after a text (Ramesh et al. 2022, section 2.2).

The sequence is a text's states, its embedding, the level of similarity of text and picture, and the codes. No place attends to
later ones; the place before a code tells its probabilities.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem
from lodestar.nets.attention import Masked, Past
from lodestar.nets.base import Network
from lodestar.nets.blocks import LayerNorm, blocks, learned
from lodestar.nets.clip_image import Layers
from lodestar.nets.layers import Linear

_OTHERS = 2
"""Places between the text's states and the codes."""


class CodesConfig(Config):
    """A transformer of codes."""

    silent: ClassVar[tuple[str, ...]] = ("heads",)

    context: int = Field(default=32, ge=1, le=2**13)
    """Number of the text's states."""
    codes: int = Field(default=64, ge=1, le=2**13)
    """Number of codes of a picture."""
    buckets: int = Field(default=256, ge=2, le=2**16)
    """Number of values of a code."""
    similarities: int = Field(default=32, ge=2, le=2**13)
    """Number of levels of similarity."""
    width: Channels = 192
    layers: Layers = 4
    heads: Annotated[int, Field(ge=1, le=1_024)] = 6

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise Problem(f"width is {self.width}: it has to be a multiple of {self.heads} heads")
        return self

    def build(self) -> Codes:
        return Codes(self)


class Codes(Network):
    """See the module's docstring."""

    def __init__(self, config: CodesConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.similarity = nn.Embedding(config.similarities, width, _weight=learned(config.similarities, width, deviation=0.02))
        rows = (config.codes - 1) * config.buckets
        self.code = nn.Embedding(rows, width, _weight=learned(rows, width, deviation=0.02))
        self.position = learned(config.context + _OTHERS + config.codes - 1, width, deviation=0.01)
        self.blocks = blocks(width, config.layers, config.heads, "gelu", key_bias=True)
        self.norm = LayerNorm(width)
        self.out = Linear(width, config.buckets)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)

    def lower(self, dtype: torch.dtype) -> None:
        self.blocks.to(dtype)

    def prefix(self, tokens: Tensor, emb: Tensor, similarity: Tensor) -> Tensor:
        """The sequence before the codes, float32 [B, context + 2, width], of states, embeddings and levels int64 [B]."""
        return torch.cat([tokens, emb[:, None], self.similarity(similarity)[:, None]], dim=1)

    def embedded(self, codes: Tensor, first: int = 0) -> Tensor:
        """Vectors float32 [B, N, width] of codes int64 [B, N], by a table for each; first: number of the first of them."""
        numbers = torch.arange(first, first + codes.shape[1], device=codes.device)
        vectors: Tensor = self.code(codes + numbers * self.config.buckets)
        return vectors

    def before(self) -> list[Past]:
        """Room for the places of a sequence, block by block, before the first of them."""
        return [Past(len(self.position)) for _ in self.blocks]

    def forward(
        self, x: Tensor, mask: Tensor, first: int = 0, past: Sequence[Past] | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        """Logits float32 [B, N, buckets] at the places of a sequence x [B, N, width], the first of which has this number.

        mask: bool [B, context], True at the text. past: the places before, block by block; see `before`.
        """
        h = (x + self.position[first : first + x.shape[1]]).to(dtype)
        attend = Masked(mask, causal=True)
        for number, block in enumerate(self.blocks):
            h = block(h, attend, None if past is None else past[number])
        logits: Tensor = self.out(self.norm(h.float()))
        return logits
