"""Class labels as a condition: a learned vector for each class, added to the embedding of time (ADM, Improved DDPM).

No label is the zero vector, so a network that never saw a dropped label is unchanged by this, and one that did is both
conditional and unconditional (classifier-free guidance).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.config import ClassNumber, Config, Problem
from lodestar.nets.layers import normal


class Composed(Config):
    """Several classes at once, ``dog+ship``, and classes that are not wanted, ``not cat`` (`lodestar.guidance.composition`)."""

    wanted: tuple[ClassNumber, ...] = Field(default=(), max_length=1_000)
    unwanted: tuple[ClassNumber, ...] = Field(default=(), max_length=1_000)

    @model_validator(mode="after")
    def _different(self) -> Self:
        numbers = (*self.wanted, *self.unwanted)
        if not numbers:
            raise Problem("a composed label needs a class, wanted or unwanted")
        if twice := [number for number in numbers if numbers.count(number) > 1]:
            raise Problem(f"class {twice[0]} is in a composed label twice")
        return self


Label = int | Composed | None
"""What a picture is asked to show: a class, several, or nothing in particular (unconditional)."""


def signs(label: Label) -> dict[int, float]:
    """The classes of a label: 1 for one that is wanted, −1 for one that is not."""
    if isinstance(label, Composed):
        return {**dict.fromkeys(label.wanted, 1.0), **dict.fromkeys(label.unwanted, -1.0)}
    return {} if label is None else {label: 1.0}


def sign_table(labels: Sequence[Label], classes: int) -> Tensor:
    """The signs of B labels, 0 for classes that are not named: float32 [B, classes]."""
    table = torch.zeros(len(labels), classes)
    for row, label in enumerate(labels):
        for number, sign in signs(label).items():
            table[row, number] = sign
    return table


class LabelCondition(nn.Module):
    """Classes to vectors [B, width]."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding.from_pretrained(normal(classes, width), freeze=False)

    def forward(self, label: Tensor, keep: Tensor | None = None) -> Tensor:
        """label: int64 [B]. keep: bool [B], False where the sample loses its label. Returns float32 [B, width]."""
        emb = self.table(label)
        return emb if keep is None else emb * keep[:, None]
