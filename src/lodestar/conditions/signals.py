"""Signals: encoded conditions, in the form taken by networks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


def enlarged(planes: Tensor, size: Sequence[int]) -> Tensor:
    """Planes [B, P, h, w] at this height and width, resized bilinearly as published; as they are where they have them."""
    return planes if planes.shape[-2:] == tuple(size) else F.interpolate(planes, size=tuple(size), mode="bilinear")


@dataclass(frozen=True, slots=True)
class Signals:
    """Encoded conditions beside x and the time, computed once for a whole sampling run. A part is None if not conditioned on.

    Signals of several conditions add: embeddings are summed, planes and tokens concatenated.
    """

    emb: Tensor | None = None
    """Embedding added to that of time, float32 [B, emb_width]; None is zero."""
    planes: Tensor | None = None
    """Planes concatenated with x, float32 [B, P, h, w] of any size, in [−1, 1]."""
    tokens: Tensor | None = None
    """States of a text, float32 [B, L, D], to which every place of the picture attends."""
    mask: Tensor | None = None
    """Mask bool [B, L] of the tokens that are attended to; None for all."""

    def __add__(self, other: Signals) -> Signals:
        emb = self.emb if other.emb is None else other.emb if self.emb is None else self.emb + other.emb
        planes = [each for each in (self.planes, other.planes) if each is not None]
        size = max((each.shape[-2:] for each in planes), default=None)
        tokens = [each for each in (self.tokens, other.tokens) if each is not None]
        masks = [] if self.mask is None and other.mask is None else [*self._masks(), *other._masks()]
        return Signals(emb, _all([enlarged(each, size or ()) for each in planes]), _all(tokens), _all(masks))

    def _masks(self) -> list[Tensor]:
        """The mask of the tokens, written out; none without tokens."""
        if self.tokens is None:
            return []
        return [torch.ones_like(self.tokens[..., 0], dtype=torch.bool) if self.mask is None else self.mask]

    def beside(self, other: Signals) -> Signals:
        """The signals of a batch and of another one after it: [B, …] and [B', …] as [B + B', …]."""
        pairs = ((self.emb, other.emb), (self.planes, other.planes), (self.tokens, other.tokens), (self.mask, other.mask))
        return Signals(*(_joined(first, second) for first, second in pairs))

    def toward(self, other: Signals, weight: Tensor) -> Signals:
        """Interpolated signals, from these (weight 0) to another's (1), by embeddings and tokens; weight float32 [B]."""
        mask = self.mask if self.mask is None or other.mask is None else self.mask | other.mask
        return Signals(_between(self.emb, other.emb, weight), self.planes, _between(self.tokens, other.tokens, weight), mask)


def _all(parts: list[Tensor]) -> Tensor | None:
    """Parts concatenated along their second dimension; None for none."""
    return torch.cat(parts, dim=1) if len(parts) > 1 else parts[0] if parts else None


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Two parts concatenated; a missing embedding is zero."""
    if first is None or second is None:
        assert first is second, "both batches are told of it, or neither"
        return None
    return torch.cat([first, second])


def _between(first: Tensor | None, second: Tensor | None, weight: Tensor) -> Tensor | None:
    if first is None or second is None:
        assert first is second, "one of the two is unconditional"
        return first
    # The two products, not lerp, are exactly either end.
    weight = weight.view(-1, *(1,) * (first.ndim - 1))
    return (1 - weight) * first + weight * second
