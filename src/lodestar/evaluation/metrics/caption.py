"""Accuracy of pictures of `shapes` (`lodestar.data.shapes`): the shares in which the exact judge finds the caption right.

Numbers are of all captions, and of those of one, two and three things:

    attributes = share of pictures with as many things as told, each of its shape, colour and size
    place      = share of captions that tell places, left, right, top or bottom, in whose pictures all of these hold
    relation   = share of captions that tell a relation in whose pictures all relations hold
    right      = share of pictures of which all that is told is true
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.data.shapes import judge, parse
from lodestar.evaluation.metrics.base import Marker, PromptedMetric
from lodestar.evaluation.repeats import Share
from lodestar.generators.guide import Guide

_NUMBERS = ("one", "two", "three")
CLAIMS = ("attributes", "place", "relation", "right")
"""Claims of a caption on a picture: attributes of things, the place of one, the relation of two, and all of these."""


class Caption(PromptedMetric):
    """Accuracy by the judge of `shapes`: ``caption_right``, ``caption_attributes``, ``caption_place``, ``caption_relation``,
    also by number of things."""

    kind: Literal["caption"] = "caption"

    def marker(self, guide: Guide | None) -> Marker:
        return _marks

    def check(self, prompt: str) -> None:
        try:
            parse(prompt)
        except Problem as problem:
            raise Problem(f"metric {self.kind!r} judges pictures of shapes: {problem}") from None

    def __call__(self, marks: Tensor) -> Mapping[str, float | Share]:
        things, claims = marks[:, 0], marks[:, 1:]
        groups = {"": things > 0} | {f"{name}_": things == number for number, name in enumerate(_NUMBERS, 1)}
        found = {
            f"{self.kind}_{group}{claim}": _share(claims[rows, place])
            for group, rows in groups.items()
            for place, claim in enumerate(CLAIMS)
        }
        return {name: share for name, share in found.items() if share.count}


def _marks(pictures: Tensor, prompts: Sequence[str]) -> Tensor:
    """Number of things in the caption, and whether its claims hold [B, 5]: 1, 0, or nan for a claim that it does not make."""
    rows = []
    for picture, prompt in zip(pictures, prompts, strict=True):
        verdict = judge(picture.numpy(), prompt)
        claims = (verdict.attributes, verdict.place, verdict.relation, verdict.right)
        rows.append([len(verdict.shapes), *(math.nan if holds is None else holds for holds in claims)])
    return torch.tensor(rows, dtype=torch.float64)


def _share(claims: Tensor) -> Share:
    made = claims[~claims.isnan()]
    return Share(int(made.sum()), len(made))
