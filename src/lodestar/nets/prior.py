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
        self._kept: tuple[tuple[Tensor, ...], tuple[torch.dtype, bool], tuple[Sequence[Past], Tensor]] | None = None

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
        places = (self.time(time), self.embedding(x.flatten(1)), self.query.expand(len(x), -1))
        h, past = torch.stack(places, dim=1) + self.position[-len(places) :], list[Past | None]([None] * len(self.blocks))
        if torch.is_grad_enabled():
            text, mask = self._text(tokens, emb, mask)
            h = torch.cat([text, h], dim=1)
        else:
            past[:], mask = self._told(tokens, emb, mask, dtype or x.dtype)
        h, attend = h.to(dtype or x.dtype), Masked(mask, causal=True)
        for number, (block, before) in enumerate(zip(self.blocks, past, strict=True), 1):
            h = block(h, attend, before, last=number == len(self.blocks))
        out: Tensor = self.out(self.norm(h[:, -1].float()))
        return out[:, :, None, None]

    def _text(self, tokens: Tensor, emb: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """The text's places [B, N + 1, width], N of them to the end of the longest text, and their mask [B, N]."""
        numbers = torch.arange(1, mask.shape[1] + 1, device=mask.device)
        longest = int((mask.any(dim=0) * numbers).amax())
        states = tokens[:, :longest] + self.position[:longest]
        return torch.cat([states, (emb + self.position[mask.shape[1]])[:, None]], dim=1), mask[:, :longest]

    def _told(self, tokens: Tensor, emb: Tensor, mask: Tensor, dtype: torch.dtype) -> tuple[Sequence[Past], Tensor]:
        """The text's places, block by block, and their mask: no step of sampling changes them, so they are computed once."""
        # What was made in inference mode is not to be written to outside of it.
        given, how = (tokens, emb, mask), (dtype, torch.is_inference_mode_enabled())
        if self._kept is not None:
            before, known, kept = self._kept
            if known == how and all(ours is theirs for ours, theirs in zip(before, given, strict=True)):
                return kept
        h, mask = self._text(tokens, emb, mask)
        h, attend, told = h.to(dtype), Masked(mask, causal=True), [Past(h.shape[1] + _OTHERS - 1) for _ in self.blocks]
        for block, past in zip(self.blocks, told, strict=True):
            h = block(h, attend, past)
            past.closed = True
        self._kept = given, how, (told, mask)
        return told, mask

    def lower(self, dtype: torch.dtype) -> None:
        self.blocks.to(dtype)
        self._kept = None

    def train(self, mode: bool = True) -> Self:
        self._kept = None
        return super().train(mode)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)
