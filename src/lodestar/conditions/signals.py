"""Signals: encoded conditions, in the form taken by networks."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Signals:
    """Encoded conditions beside x and the time, computed once for a whole sampling run. A part is None if not conditioned on.

    Signals of several conditions add: embeddings are summed, planes concatenated.
    """

    emb: Tensor | None = None
    """Embedding added to that of time, float32 [B, emb_width]; None is zero."""
    planes: Tensor | None = None
    """Planes concatenated with x, float32 [B, P, h, w] of any size, in [−1, 1]."""

    def __add__(self, other: Signals) -> Signals:
        emb = self.emb if other.emb is None else other.emb if self.emb is None else self.emb + other.emb
        planes = [each for each in (self.planes, other.planes) if each is not None]
        return Signals(emb, torch.cat(planes, dim=1) if len(planes) > 1 else planes[0] if planes else None)

    def beside(self, other: Signals) -> Signals:
        """The signals of a batch and of another one after it: [B, …] and [B', …] as [B + B', …]."""
        return Signals(_joined(self.emb, other.emb), _joined(self.planes, other.planes))

    def toward(self, other: Signals, weight: Tensor) -> Signals:
        """Interpolated signals, from these (weight 0) to another's (1), by their embeddings; weight float32 [B]."""
        if self.emb is None or other.emb is None:
            assert self.emb is other.emb, "one of the two is unconditional"
            return self
        # The two products, not lerp, are exactly either end.
        weight = weight[:, None]
        return Signals((1 - weight) * self.emb + weight * other.emb, self.planes)


def _joined(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Two parts concatenated; a missing embedding is zero."""
    if first is None or second is None:
        assert first is second, "both batches are told of it, or neither"
        return None
    return torch.cat([first, second])
