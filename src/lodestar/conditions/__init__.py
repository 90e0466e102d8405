"""What a denoiser may be conditioned on, one modality a file; each makes its part of `Signals`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from lodestar.conditions.ask import SEEDS, Ask
from lodestar.conditions.label import Composed, Label, LabelCondition, sign_table, signs

Cond = Mapping[str, Tensor]
"""Conditions by name; a missing name means unconditional in that modality."""


@dataclass(frozen=True, slots=True)
class Signals:
    """Conditions in the form that networks take, made once for a whole sampling run."""

    emb: Tensor | None = None
    """Sum of the embeddings, float32 [B, emb_width]; None is zero."""
    planes: Tensor | None = None
    """Pictures to see beside x, float32 [B, P, h, w] of any size, in [−1, 1]; None where the network takes none."""


__all__ = ["SEEDS", "Ask", "Composed", "Cond", "Label", "LabelCondition", "Signals", "sign_table", "signs"]
