"""Class labels as a condition: a learned vector for each class, added to the embedding of time (ADM, Improved DDPM).

No label is the zero vector, so a network that never saw a dropped label is unchanged by this, and one that did is both
conditional and unconditional (classifier-free guidance).
"""

from __future__ import annotations

from torch import Tensor, nn


class LabelCondition(nn.Module):
    """Classes to vectors [B, width]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, width)

    def forward(self, label: Tensor, keep: Tensor | None = None) -> Tensor:
        """label: int64 [B]. keep: bool [B], False where the sample loses its label. Returns float32 [B, width]."""
        emb = self.table(label)
        return emb if keep is None else emb * keep[:, None]
