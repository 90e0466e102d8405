"""A CLIP's embedding of a picture as a condition of a decoder (DALL·E 2, Ramesh et al. 2022, section 2.1).

It is added to the embedding of time, and is told as a few tokens, to which every place attends. No embedding is a learned one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from lodestar.codecs.embeddings import Space
from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.signals import Signals
from lodestar.config import Channels, Problem, shown
from lodestar.nets.layers import Linear, zero


class Embedding(Condition):
    """A CLIP's embedding of a picture."""

    kind: Literal["embedding"] = "embedding"
    embed: Channels = 512
    """Channels of the embedding."""
    width: Channels = 512
    """Channels of a token."""
    tokens: int = Field(default=4, ge=1, le=1_024)
    """Number of tokens."""
    space: Space | None = None
    """CLIP of the embeddings; None if not known."""

    @property
    def told(self) -> int | None:
        return self.width

    def build(self, width: int) -> EmbeddingEncoder:
        return EmbeddingEncoder(self, width)

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        """The embeddings float32 [B, embed] of the asks, lists of numbers. Raises Problem for another length, and for NaN."""
        given = [ask.given(self.kind) for ask in asks]
        rows = [self._row(each) for each in given]
        return torch.stack(rows), torch.tensor([each is not None for each in given])

    def _row(self, given: object) -> Tensor:
        if given is None:
            return torch.zeros(self.embed)
        if not isinstance(given, list | tuple) or not all(type(value) in (int, float) for value in given):
            raise Problem(f"embedding {shown(given)}: a list of {self.embed} numbers")
        row = torch.tensor(given, dtype=torch.float32)
        if len(row) != self.embed or not row.isfinite().all():
            told = "not all finite" if len(row) == self.embed else f"{len(row)} of them"
            raise Problem(f"embedding of an ask is {told}: this model is told {self.embed} finite numbers")
        return row

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        embedding = fields["embedding"]
        assert isinstance(embedding, Tensor), "embeddings are numbers"
        return embedding.to(x0.device)


class EmbeddingEncoder(Encoder):
    """Affine maps of an embedding, to a vector and to tokens."""

    def __init__(self, config: Embedding, width: int) -> None:
        super().__init__()
        self.config = config
        self.nothing = nn.Parameter(torch.zeros(config.embed))
        self.vector, self.tokens = Linear(config.embed, width), Linear(config.embed, config.tokens * config.width)

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of embeddings, float32 [B, embed]."""
        given = given if keep is None else torch.where(keep[:, None], given, self.nothing)
        # As published, the tokens are the last axis of the map's result.
        tokens = self.tokens(given).view(len(given), self.config.width, self.config.tokens).transpose(1, 2)
        return Signals(self.vector(given), tokens=tokens)

    def quieten(self, said: Signals) -> None:
        """Let the encoder say the same of every embedding until it learns more: signals of a sample, with means of its tokens."""
        zero(self.vector)
        zero(self.tokens)
        if said.emb is not None:
            self.vector.bias.data.copy_(said.emb[0])
        if said.tokens is not None and said.tokens.shape[2] == self.config.width:
            self.tokens.bias.data.copy_(F.adaptive_avg_pool1d(said.tokens[0].T, self.config.tokens).flatten())

    def null(self, count: int) -> Signals:
        signals: Signals = self(self.nothing.expand(count, -1))
        return signals
