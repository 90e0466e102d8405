"""CLIP (Radford et al. 2021): an image tower and a text tower with one space of embeddings; GLIDE's noise-aware CLIP as well."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem
from lodestar.nets.base import Network
from lodestar.nets.blocks import Activation, LayerNorm, blocks, earlier, learned
from lodestar.nets.clip_image import AnyImageTower, Layers, ViTConfig
from lodestar.nets.layers import Linear

SHARPEST = 100.0
"""Largest factor of a cosine in training; the published models are at this limit."""


class TextTowerConfig(Config):
    """The text tower: a causal transformer, whose state at the last token of a text is embedded."""

    silent: ClassVar[tuple[str, ...]] = ("heads", "activation")

    vocabulary: int = Field(default=49_408, ge=2, le=10_000_000)
    """Number of tokens. Without a mask, the token with the highest number is the last of a text."""
    context: int = Field(default=77, ge=1, le=100_000)
    """Maximum number of tokens of a text."""
    width: Channels = 512
    layers: Layers = 12
    heads: Annotated[int, Field(ge=1, le=1_024)] = 8
    activation: Activation = "quick_gelu"
    key_bias: bool = True

    def build(self, embed: int) -> TextTower:
        """The tower, its weights random."""
        if self.width % self.heads:
            raise Problem(f"width is {self.width}: it has to be a multiple of {self.heads} heads")
        return TextTower(self, embed)


class TextTower(Network):
    """A text tower."""

    def __init__(self, config: TextTowerConfig, embed: int) -> None:
        super().__init__()
        self.config = config
        table = learned(config.vocabulary, config.width, deviation=0.02)
        self.token = nn.Embedding(config.vocabulary, config.width, _weight=table)
        self.position = learned(config.context, config.width, deviation=0.01)
        self.blocks = blocks(config.width, config.layers, config.heads, config.activation, config.key_bias)
        self.norm = LayerNorm(config.width)
        self.out = Linear(config.width, embed, bias=False)
        nn.init.normal_(self.out.weight, std=config.width**-0.5)

    def states(self, tokens: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """The normed state of every token, float32 [B, L, width]; tokens int64 [B, L], L at most the context."""
        h = (self.token(tokens) + self.position[: tokens.shape[1]]).to(dtype)
        for block in self.blocks:
            h = block(h, earlier)
        out: Tensor = self.norm(h.float())
        return out

    def forward(self, tokens: Tensor, mask: Tensor | None = None, dtype: torch.dtype = torch.float32) -> Tensor:
        """Embedding float32 [B, E]. mask: bool [B, L], True for a text's own tokens."""
        return self.embed(self.states(tokens, dtype), tokens, mask)

    def embed(self, states: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embedding float32 [B, E] of texts with these `states` of their tokens."""
        last = tokens.argmax(dim=1) if mask is None else mask.sum(dim=1).clamp_min(1) - 1
        out: Tensor = self.out(states[torch.arange(len(tokens), device=tokens.device), last])
        return out

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)

    def lower(self, dtype: torch.dtype) -> None:
        self.blocks.to(dtype)


class ClipConfig(Config):
    """A CLIP network."""

    image: AnyImageTower = ViTConfig()
    text: TextTowerConfig = TextTowerConfig()

    def build(self) -> Clip:
        """The network, its weights random."""
        return Clip(self)


class Clip(nn.Module):
    """Two towers and the factor of the cosine between their embeddings."""

    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.config = config
        self.image, self.text = config.image.build(), config.text.build(config.image.embed)
        self.log_scale = nn.Parameter(torch.tensor(math.log(1 / 0.07)))
        """Logarithm of the factor."""

    @property
    def scale(self) -> Tensor:
        """The factor, at most `SHARPEST` in training."""
        return self.log_scale.float().exp()

    def lower(self, dtype: torch.dtype) -> None:
        """Keep both torsos' weights in `dtype`, for inference."""
        self.image.lower(dtype)
        self.text.lower(dtype)


def unit(embedding: Tensor) -> Tensor:
    """Embeddings [B, E] of length 1."""
    return F.normalize(embedding, dim=-1, eps=1e-12)
