"""Semantic guidance (Liu et al. 2021, "More Control for Free"): likeness to a reference picture, as a guide's features tell.

The picture and the reference, diffused to the same level with the picture's own initial noise, are looked at by one guide, and
the gradient of their likeness steers. Content compares embeddings, structure compares maps place by place, style their Gram
matrices, which know nothing of places. Differences are relative to the reference's features, so that a scale means the same for
every guide. All three are given in the unit of CLIP's similarity: 100 times a number that is at most 1.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from lodestar.core.level import CLEAN, Level
from lodestar.guidance.base import Context, Critic, Observed, Scaled

UNIT = 100.0
"""CLIP's trained factor of a cosine, at its upper limit."""
REFERENCE = "reference"
"""Role of the reference picture."""


class Likeness(Scaled, abc.ABC):
    """Guidance by the likeness to a reference picture. Scale 0 is none, and costs no evaluation."""

    by: Literal["classifier", "clip", "features"] = "classifier"
    """Role of the guide whose features are compared."""

    @property
    def roles(self) -> tuple[str, ...]:
        return self.by, REFERENCE

    @abc.abstractmethod
    def likeness(self, mine: Observed, reference: Observed) -> Tensor:
        """The likeness [B], at most 1, of the features of pictures and of their references."""

    def critic(self, context: Context) -> Critic:
        observer = context.observers[self.by, self.sees]

        def logp(x: Tensor, level: Level) -> Tensor:
            level = level if self.sees == "noisy" else CLEAN
            reference = observer.reference(level)
            return UNIT * self.likeness(observer(x, level), reference)

        return Critic(logp, self.scale, self.sees)

    def lacking(self, context: Context) -> str | None:
        if (self.by, self.sees) in context.observers:
            return None
        return (
            f"{self.kind} compares with a picture by a {self.by}'s features: give the picture with --reference, or reference= in "
            f"Python, and the guide with --guide {self.by}=MODEL where the model has none"
        )


class Content(Likeness):
    """Guidance towards the content of a reference picture: the cosine of the two embeddings."""

    kind: Literal["content"] = "content"

    def likeness(self, mine: Observed, reference: Observed) -> Tensor:
        return F.cosine_similarity(mine.embedding, reference.embedding)


class Structure(Likeness):
    """Guidance towards the structure of a reference picture: the deepest map, place by place."""

    kind: Literal["structure"] = "structure"

    def likeness(self, mine: Observed, reference: Observed) -> Tensor:
        return 1 - _difference(mine.maps[-1:], reference.maps[-1:])


class Style(Likeness):
    """Guidance towards the style of a reference picture: Gram matrices of the maps of every resolution (Gatys et al. 2016)."""

    kind: Literal["style"] = "style"

    def likeness(self, mine: Observed, reference: Observed) -> Tensor:
        return 1 - _difference([gram(each) for each in mine.maps], [gram(each) for each in reference.maps])


def gram(maps: Tensor) -> Tensor:
    """Gram matrices [B, C, C] of maps [B, C, H, W]: mean products of channels over all places."""
    rows = maps.flatten(2)
    return rows @ rows.transpose(1, 2) / rows.shape[2]


def _difference(mine: Sequence[Tensor], reference: Sequence[Tensor]) -> Tensor:
    """The squared difference [B] of features, relative to the reference's squares, mean over the layers."""
    parts = [
        (one - other).square().flatten(1).sum(dim=1) / other.square().flatten(1).sum(dim=1)
        for one, other in zip(mine, reference, strict=True)
    ]
    return sum(parts[1:], parts[0]) / len(parts)
