"""The text transformer of GLIDE (Nichol et al. 2022, section 3): blocks of attention over all tokens, without a causal mask.

The states are told to a U-Net token by token, and the last one alone as a vector beside the embedding of time.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Config, Problem
from lodestar.nets.attention import attend
from lodestar.nets.layers import Linear, normal, zero


class TextTransformerConfig(Config):
    """A text transformer. Defaults are for short captions; GLIDE's published one has 16 layers of width 512, and 128 tokens."""

    context: int = Field(default=32, ge=1, le=2**13)
    """Maximum number of tokens of a text."""
    width: Channels = 128
    layers: int = Field(default=4, ge=0, le=1_000)
    heads: Channels = 4
    final_norm: bool = True
    """Normalize the states after the last block."""
    padding: bool = True
    """Learned vectors stand at the places after a text, in place of those of its filling token."""
    pooled: Literal["last", "mean"] = "last"
    """Vector of a whole text: the state of the last place, as published, or the mean of all."""
    neighbours: int = Field(default=0, ge=0, le=32)
    """Reach in tokens of a convolution over embeddings, whose result is added before the first block: a thing's words are told
    together from the first step on. 0: no convolution, as published."""

    @model_validator(mode="after")
    def _divides(self) -> TextTransformerConfig:
        if self.width % self.heads:
            raise Problem(f"{self.width} channels do not divide by {self.heads} heads")
        return self


class TextBlock(nn.Module):
    """A transformer block: attention, then two affine maps, each on a norm and beside a residual path."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = Linear(width, 3 * width), zero(Linear(width, width))
        self.widen, self.narrow = Linear(width, 4 * width), zero(Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, L, W] to [B, L, W]."""
        x = x + self.out(attend(self.qkv(self.norm1(x)), self.heads, "heads_first"))
        out: Tensor = x + self.narrow(F.gelu(self.widen(self.norm2(x))))
        return out


class TextTransformer(nn.Module):
    """A text transformer over tokens of a vocabulary, or over given states of another model."""

    def __init__(self, config: TextTransformerConfig, tokens: int, out_width: int, states: bool = False) -> None:
        """tokens: size of the vocabulary; if `states`, channels of the given states. out_width: width of a text's vector."""
        super().__init__()
        self.config = config
        # States begin as words and places alone, and ten times as large as GPT's: what stands where is soon lost otherwise.
        width, scale = config.width, 5.0
        self.embedding = Linear(tokens, width) if states else nn.Embedding.from_pretrained(normal(tokens, width, divisor=scale))
        self.embedding.requires_grad_(True)
        self.position = nn.Parameter(normal(config.context, width, divisor=scale))
        self.padding = nn.Parameter(normal(config.context, width, divisor=scale)) if config.padding else None
        near = config.neighbours
        self.near = zero(nn.Conv1d(width, width, 2 * near + 1, padding=near, bias=False)) if near else None
        self.blocks = nn.ModuleList([TextBlock(width, config.heads) for _ in range(config.layers)])
        self.norm = nn.LayerNorm(width) if config.final_norm else None
        self.project = Linear(width, out_width)

    def forward(self, given: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """States [B, L, W], and the vector of each text [B, out_width].

        given: tokens int64 [B, L], or states float32 [B, L, D]. mask: bool [B, L], True at the text.
        """
        x = self.embedding(given) + self.position
        if self.padding is not None:
            x = torch.where(mask[..., None], x, self.padding)
        if self.near is not None:
            x = x + self.near(x.mT).mT
        for block in self.blocks:
            x = block(x)
        x = x if self.norm is None else self.norm(x)
        return x, self.project(x[:, -1] if self.config.pooled == "last" else x.mean(dim=1))
