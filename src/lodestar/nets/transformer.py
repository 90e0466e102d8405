"""A decoder-only transformer over a map of codes, after the states of a text if it is told one.

With a text this is DALL·E 1 in small (Ramesh et al. 2021), and the decoder of Parti (Yu et al. 2022). No place attends to later
ones. A place's position is the sum of a vector of its row and one of its column, as in DALL·E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Problem
from lodestar.nets.attention import Masked, Past
from lodestar.nets.blocks import LayerNorm, blocks, earlier, learned
from lodestar.nets.clip_image import Layers
from lodestar.nets.dropout import Dropout
from lodestar.nets.layers import Linear
from lodestar.nets.maps import MapConfig, MapNetwork, Walk


class TransformerConfig(MapConfig):
    """A transformer over a map of codes."""

    silent: ClassVar[tuple[str, ...]] = ("heads",)

    kind: Literal["transformer"] = "transformer"
    width: Channels = 192
    layers: Layers = 6
    heads: Annotated[int, Field(ge=1, le=1_024)] = 6
    dropout: float = Field(default=0.1, ge=0, lt=1)
    """Dropout of the vectors that go into the first block."""
    states: Channels | None = None
    """Channels of the states of a text; None for a network that is told none."""

    @model_validator(mode="after")
    def _divides(self) -> Self:
        if self.width % self.heads:
            raise Problem(f"width is {self.width}: it has to be a multiple of {self.heads} heads")
        return self

    @property
    def emb_width(self) -> int:
        return self.width

    def fitted(self, size: tuple[int, int], codes: int, conditional: bool, coarser: bool, states: int | None) -> Self:
        return super().fitted(size, codes, conditional, coarser, states).replace(states=states)

    def build(self) -> Transformer:
        return Transformer(self)


class Transformer(MapNetwork):
    """See the module's docstring."""

    config: TransformerConfig

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.code = nn.Embedding(config.codes, width, _weight=learned(config.codes, width, deviation=0.02))
        self.start = learned(width, deviation=0.02)
        self.row, self.column = (learned(side, width, deviation=0.01) for side in config.size)
        self.states = None if config.states is None else Linear(config.states, width)
        self.told = config.telling()
        self.dropout = Dropout(config.dropout)
        self.blocks = blocks(width, config.layers, config.heads, "gelu", key_bias=True)
        self.norm = LayerNorm(width)
        self.out = Linear(width, config.codes)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.blocks,)

    def forward(
        self, codes: Tensor, told: Tensor | None = None, tokens: Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        count, height, width = codes.shape
        before = self.code(codes.flatten(1))[:, :-1]
        x = torch.cat([self.start.expand(count, 1, -1), before], dim=1) + self._beside(told)[:, : height * width]
        prefix = self._prefix(count, tokens)
        h = self.dropout(torch.cat([prefix, x], dim=1)).to(dtype)
        for block in self.blocks:
            h = block(h, earlier)
        logits = self.out(self.norm(h[:, prefix.shape[1] :].float()))
        shaped: Tensor = logits.transpose(1, 2).unflatten(2, (height, width))
        return shaped

    def walk(self, count: int, told: Tensor | None = None, tokens: Tensor | None = None) -> Walk:
        beside, places = self._beside(told), self.config.size[0] * self.config.size[1]
        attend = Masked(torch.ones(count, 0, dtype=torch.bool, device=beside.device), causal=True)
        new = torch.cat([self._prefix(count, tokens), self.start.expand(count, 1, -1) + beside[:, :1]], dim=1)
        kept = [Past(new.shape[1] + places - 1) for _ in self.blocks]
        for place in range(places):
            h = new
            for block, before in zip(self.blocks, kept, strict=True):
                h = block(h, attend, before)
            chosen = yield self.out(self.norm(h[:, -1]))
            if place + 1 < places:
                new = (self.code(chosen) + beside[:, place + 1])[:, None]

    def _beside(self, told: Tensor | None) -> Tensor:
        """The sum of the position and of what is told of each place, [1 or B, H·W, width]."""
        position: Tensor = self.row[:, None] + self.column
        beside: Tensor = position[None] if told is None else position + told.movedim(1, -1)
        return beside.flatten(1, 2)

    def _prefix(self, count: int, tokens: Tensor | None) -> Tensor:
        """The states of a text as vectors before the codes, [B, L, width]."""
        if self.states is None:
            return self.start.new_zeros(count, 0, len(self.start))
        assert tokens is not None, "this network is told a text"
        states: Tensor = self.states(tokens)
        return states
