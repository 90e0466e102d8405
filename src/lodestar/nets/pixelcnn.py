"""The gated PixelCNN over a map of codes (van den Oord et al. 2016, "Conditional Image Generation with PixelCNN Decoders").

A vertical stack sees all rows above a place. A horizontal stack sees the places to its left, and is told the vertical one.
"""

from __future__ import annotations

from functools import partial
from typing import Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import Channels, Problem
from lodestar.nets.causal import Causal, Normed, Place
from lodestar.nets.dropout import Dropout
from lodestar.nets.maps import Depth, Kernel, MapConfig, MapNetwork, Walk


class PixelCnnConfig(MapConfig):
    """A gated PixelCNN."""

    kind: Literal["pixelcnn"] = "pixelcnn"
    kernel: Kernel = 5
    """Height and width of what a layer sees, before the half that is later is left out; odd."""
    layers: Depth = 8
    hidden: Channels = 128
    """Channels before the logits."""
    dropout: float = Field(default=0.1, ge=0, lt=1)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.kernel < 3 or not self.kernel % 2:
            raise Problem(f"kernel is {self.kernel}: it is odd, and 3 at least")
        return self

    def build(self) -> PixelCnn:
        return PixelCnn(self)


class Layer(nn.Module):
    """A layer of both stacks, each with a gated activation; the horizontal one is residual."""

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__()
        width, half = config.width, (config.kernel + 1) // 2
        self.up = Causal(width, 2 * width, (half, config.kernel), "up")
        self.left = Causal(width, 2 * width, (1, half), "left")
        self.link, self.out = Normed(2 * width, 2 * width, 1, 1), Normed(width, width, 1, 1)
        told = config.told
        self.told_up, self.told_left = (None if told is None else Normed(2 * width, told, 1, 1, bias=False) for _ in range(2))
        self.dropout = Dropout(config.dropout)

    def vertical(self, v: Tensor, told: Tensor | None, at: Place | None = None) -> tuple[Tensor, Tensor]:
        """The vertical stack's next values, and what the horizontal one is told [B, 2·C, H, W]; at a place of its row alone."""
        v = self.up(v, at)
        link = self.link(v)
        if self.told_up is not None:
            assert told is not None
            v = v + (self.told_up(told) if at is None else at.line(at.once(self.told_up, partial(self.told_up, told))))
        return gate(v), link

    def horizontal(self, h: Tensor, link: Tensor, told: Tensor | None, at: Place | None = None) -> Tensor:
        """The horizontal stack's next values."""
        x = self.left(h, at) + link
        if self.told_left is not None:
            assert told is not None
            x = x + (self.told_left(told) if at is None else at.pick(at.once(self.told_left, partial(self.told_left, told))))
        out: Tensor = h + self.out(self.dropout(gate(x)), at)
        return out


def gate(x: Tensor) -> Tensor:
    """The gated activation tanh(a)·σ(b) of [B, 2·C, ...]."""
    a, b = x.chunk(2, dim=1)
    return torch.tanh(a) * torch.sigmoid(b)


class PixelCnn(MapNetwork):
    """See the module's docstring."""

    config: PixelCnnConfig

    def __init__(self, config: PixelCnnConfig) -> None:
        super().__init__()
        self.config = config
        width, half = config.width, config.kernel // 2
        self.rows = Causal(config.codes, width, (half, config.kernel), "up")
        self.columns = Causal(config.codes, width, (1, half), "left")
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.layers))
        self.told = config.telling()
        self.hidden1, self.head = Normed(config.hidden, width, 1, 1), Normed(config.codes, config.hidden, 1, 1)

    def forward(
        self, codes: Tensor, told: Tensor | None = None, tokens: Tensor | None = None, dtype: torch.dtype = torch.float32
    ) -> Tensor:
        x, height = self.spread(codes, dtype), codes.shape[1]
        told = None if told is None else told[:, :, :height].to(dtype)
        # Shifted by one place, so that no place sees itself.
        v, h = F.pad(self.rows(x), (0, 0, 1, 0))[:, :, :height], F.pad(self.columns(x), (1, 0))[..., :-1]
        for layer in self._each:
            v, link = layer.vertical(v, told)
            h = layer.horizontal(h, link, told)
        return self._logits(h)

    @property
    def _each(self) -> list[Layer]:
        return [layer for layer in self.layers if isinstance(layer, Layer)]

    def _logits(self, h: Tensor, at: Place | None = None) -> Tensor:
        logits: Tensor = self.head(F.relu(self.hidden1(F.relu(h), at)), at).float()
        return logits

    def walk(self, count: int, told: Tensor | None = None, tokens: Tensor | None = None) -> Walk:
        half, device = self.config.kernel // 2, self.head.length.device
        at = Place(count, self.config.size, self.config.codes, device, margin=self.config.kernel)
        links: list[Tensor] = []
        for column in at:
            if column == 0:  # all of the row's vertical stack is known by now, and neighbours in the row need each other's
                v = at.line_of_codes(self.rows, half)
                v, links = v if at.row else torch.zeros_like(v), []
                for layer in self._each:
                    v, link = layer.vertical(v, told, at)
                    links.append(link)
            h = at.of_codes(self.columns, 0, half)
            h = h if column else torch.zeros_like(h)
            for layer, link in zip(self._each, links, strict=True):
                h = layer.horizontal(h, link[:, :, 0, column], told, at)
            at.choose((yield self._logits(h, at)))
