"""The prior's transformer of DALL·E 2 (Ramesh et al. 2022, section 2.2), in the layout of Karlo.

The sequence is a text's states, its embedding, the time, the noised embedding of a picture, and a learned query, at whose place
the clean embedding is read. No place attends to later ones, so all of the text is the same in every step of sampling. A datum is
an embedding [B, D, 1, 1]: D channels of one place.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Problem
from lodestar.nets.attention import Gather, Masked, Past
from lodestar.nets.base import DenoiserNetwork, DenoiserNetworkConfig, Kept, Part
from lodestar.nets.blocks import LayerNorm, blocks, learned
from lodestar.nets.clip_image import Layers
from lodestar.nets.layers import Linear
from lodestar.nets.unet import TimeEmbedding

_OTHERS = 4
"""Places after the text's states: its embedding, the time, the noised embedding, the query."""


class PriorConfig(DenoiserNetworkConfig):
    """A prior's transformer. Defaults are for the embeddings of a small CLIP; Karlo's has 20 layers of width 2048."""

    silent: ClassVar[tuple[str, ...]] = ("heads",)

    kind: Literal["prior"] = "prior"
    context: int = Field(default=32, ge=1, le=2**13)
    """Number of the text's states."""
    width: Channels = 128
    layers: Layers = 4
    heads: Annotated[int, Field(ge=1, le=1_024)] = 4

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise Problem(f"width is {self.width}: it has to be a multiple of {self.heads} heads")
        return self

    @property
    def emb_width(self) -> int:
        return self.width

    @property
    def told(self) -> int | None:
        return self.width

    def listening(self, width: int | None) -> Self:
        raise Problem(f"a network of kind {self.kind!r} takes a text's states of its own width, {self.width}, and not of {width}")

    @property
    def summary(self) -> str:
        places = self.context + _OTHERS
        return f"transformer of {places} places: width {self.width}, {self.layers} blocks of {self.heads} heads"

    def check_size(self, size: tuple[int, int]) -> None:
        if size != (1, 1):
            raise Problem(f"size is {size[0]}×{size[1]}: embeddings are 1×1")

    def build(self) -> Prior:
        return Prior(self)


class Prior(DenoiserNetwork):
    """See the module's docstring."""

    def __init__(self, config: PriorConfig) -> None:
        super().__init__()
        self.config = config
        width, deviation = config.width, config.width**-0.5
        self.time = TimeEmbedding(width, width)
        self.embedding = Linear(config.in_channels, width)
        self.query = learned(1, width, deviation=deviation)
        self.position = learned(config.context + _OTHERS, width, deviation=0.01)
        self.blocks = blocks(width, config.layers, config.heads, "gelu", key_bias=True)
        self.norm = LayerNorm(width)
        self.out = Linear(width, config.out_channels)
        self._kept: tuple[tuple[Tensor, ...], torch.dtype, list[tuple[Tensor, Tensor]]] | None = None

    def forward(
        self,
        x: Tensor,
        time: Tensor,
        emb: Tensor | None = None,
        dtype: torch.dtype | None = None,
        gather: Mapping[Part, Gather] | None = None,
        kept: Kept | None = None,
        tokens: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """Predict from noisy embeddings [B, D, 1, 1]; see `DenoiserNetwork.forward`. emb is the text's embedding, a place of its
        own; tokens are the text's states, all `context` of them."""
        assert tokens is not None and emb is not None, "a prior is told a text"
        mask = tokens.new_ones(tokens.shape[:2], dtype=torch.bool) if mask is None else mask
        told = self._told(tokens, emb, mask, dtype or x.dtype)
        places = (self.time(time), self.embedding(x.flatten(1)), self.query.expand(len(x), -1))
        h = (torch.stack(places, dim=1) + self.position[-len(places) :]).to(dtype or x.dtype)
        attend = Masked(mask, causal=True)
        for block, before in zip(self.blocks, told, strict=True):
            h = block(h, attend, before)
        out: Tensor = self.out(self.norm(h[:, -1].float()))
        return out[:, :, None, None]

    def _told(self, tokens: Tensor, emb: Tensor, mask: Tensor, dtype: torch.dtype) -> list[tuple[Tensor, Tensor]]:
        """Keys and values of the text's places, block by block: no step of sampling changes them, so they are made once."""
        given = (tokens, emb, mask)
        if not torch.is_grad_enabled() and self._kept is not None:
            before, kept_dtype, kept = self._kept
            if kept_dtype == dtype and all(ours is theirs for ours, theirs in zip(before, given, strict=True)):
                return kept
        h = (torch.cat([tokens, emb[:, None]], dim=1) + self.position[: tokens.shape[1] + 1]).to(dtype)
        told: list[tuple[Tensor, Tensor]] = []
        attend = Masked(mask, causal=True)
        for block in self.blocks:
            new = Past()
            h = block(h, attend, new)
            told.append((new[0].contiguous(), new[1].contiguous()))
        self._kept = None if torch.is_grad_enabled() else (given, dtype, told)
        return told

    def lower(self, dtype: torch.dtype) -> None:
        self.blocks.to(dtype)
        self._kept = None

    def train(self, mode: bool = True) -> Self:
        self._kept = None
        return super().train(mode)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)
