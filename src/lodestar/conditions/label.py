"""Class labels as a condition: a learned vector for each class, added to the embedding of time (ADM, Improved DDPM).

No label is the zero vector: a network trained without dropped labels is unchanged, a network trained with them is both
conditional and unconditional (classifier-free guidance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lodestar.conditions.ask import Ask
from lodestar.conditions.base import Condition, Encoder, Fields
from lodestar.conditions.composed import Label, signs
from lodestar.conditions.signals import Signals
from lodestar.config import CLASSES
from lodestar.nets.layers import normal


def sign_table(labels: Sequence[Label], classes: int) -> Tensor:
    """The signs of B labels, 0 for classes not named: float32 [B, classes]."""
    table = torch.zeros(len(labels), classes)
    for row, label in enumerate(labels):
        for number, sign in signs(label).items():
            table[row, number] = sign
    return table


class LabelCondition(Condition):
    """Class labels as a condition."""

    kind: Literal["label"] = "label"
    classes: int = Field(ge=1, le=CLASSES)

    def build(self, width: int) -> LabelEncoder:
        return LabelEncoder(self.classes, width)

    def asked(self, asks: Sequence[Ask]) -> tuple[Tensor, Tensor | None]:
        """Class numbers int64 [B] of single labels; `lodestar.generators.guided.bind` decomposes composed ones before."""
        labels = [ask.label for ask in asks]
        numbers = torch.tensor([label if isinstance(label, int) else 0 for label in labels])
        return numbers, torch.tensor([label is not None for label in labels])

    def seen(self, fields: Fields, x0: Tensor) -> Tensor:
        label = fields["label"]
        assert isinstance(label, Tensor), "classes are numbers"
        return label.to(x0.device)


class LabelEncoder(Encoder):
    """An embedding of classes as vectors."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(normal(classes, width), freeze=False)

    def forward(self, given: Tensor, keep: Tensor | None = None) -> Signals:
        """The signals of class numbers, int64 [B]."""
        emb = self.table(given)
        return Signals(emb if keep is None else emb * keep[:, None])

    def null(self, count: int) -> Signals:
        table = self.table.weight
        return Signals(table.new_zeros(count, table.shape[1]))
