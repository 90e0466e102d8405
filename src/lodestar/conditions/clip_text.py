"""A text as a CLIP's text tower sees it, as a condition: the states of its tokens, and its embedding (DALL·E 2, Karlo).

The tower is a model of its own, which is joined to the encoder by whoever has both; its weights are not among the denoiser's. No
text is the tower's view of an empty one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lodestar.codecs.embeddings import Space
from lodestar.conditions.base import Encoder
from lodestar.conditions.signals import Signals
from lodestar.conditions.text import NOTHING, Texts
from lodestar.config import Channels, Problem
from lodestar.nets.blocks import LayerNorm
from lodestar.nets.layers import Linear

Tower = Callable[[Tensor], tuple[Tensor, Tensor]]
"""A text tower: tokens int64 [B, L], `NOTHING` after each text, to the states of the tokens [B, L, S] and embeddings [B, E]."""


class ClipText(Texts):
    """A text through a CLIP's text tower."""

    kind: Literal["clip_text"] = "clip_text"
    length: int = Field(default=77, ge=1, le=2**13)
    """Maximum number of tokens of a text, those before and after it counted."""
    states: Channels = 512
    """Channels of the tower's states."""
    embed: Channels = 512
    """Channels of its embeddings."""
    width: Channels = 512
    """Channels of the tokens for the network."""
    norm: bool = False
    """Normalize the tokens."""
    space: Space | None = None
    """CLIP of the tower; None if not known."""

    @property
    def context(self) -> int:
        return self.length

    @property
    def told(self) -> int | None:
        return self.width

    def build(self, width: int) -> ClipTextEncoder:
        return ClipTextEncoder(self, width)

    def read(self, texts: Sequence[str], cut: bool = False) -> Tensor:
        """As `Texts.read`; a blank text keeps the tokens that stand before and after every text."""
        tokens, mask = self.tokenizer.batch(texts, self.context, cut)
        return tokens.where(mask, NOTHING)


class ClipTextEncoder(Encoder):
    """Affine maps of a tower's states and embeddings."""

    tower: Tower | None = None
    """The text tower; None before it is joined."""

    def __init__(self, config: ClipText, width: int) -> None:
        super().__init__()
        self.config = config
        self.states, self.embedding = Linear(config.states, config.width), Linear(config.embed, width)
        self.norm = LayerNorm(config.width) if config.norm else nn.Identity()

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of texts, as `ClipText.read` gives them. Raises Problem before a tower is joined."""
        if self.tower is None:
            raise Problem("this model is told texts by a CLIP, and has none: load the bundle that names both")
        if keep is not None:
            given = torch.where(keep[:, None], given, self._blank.to(given))
        with torch.no_grad():
            states, embedding = self.tower(given)
        return Signals(self.embedding(embedding), tokens=self.norm(self.states(states)), mask=given != NOTHING)

    def null(self, count: int) -> Signals:
        signals = self(self._blank.to(self.states.weight.device))
        assert signals.emb is not None and signals.tokens is not None and signals.mask is not None
        rows = (count, -1)
        return Signals(signals.emb.expand(*rows), tokens=signals.tokens.expand(*rows, -1), mask=signals.mask.expand(*rows))

    @cached_property
    def _blank(self) -> Tensor:
        return self.config.read([""])
