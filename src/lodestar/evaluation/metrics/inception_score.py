"""Inception-style score: confident classes for each picture, varied classes over all.

Salimans et al. 2016, arXiv:1606.03498, section 4. With p_n the class probabilities of picture n and p̄ their mean over a split,

    score = exp( mean_n KL(p_n ‖ p̄) ) = exp( H(p̄) - mean_n H(p_n) ),

from 1 to the number of classes. With Inception as the classifier, this is the Inception score. Splits of few pictures or few
classes score lower: consecutive splits, in which the field's numbers are published, depend on the pictures' order and number.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Seed
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics
from lodestar.evaluation.subsets import equal_parts, shuffled


class Score(BaseMetric):
    """Mean ``score`` over splits of the generated pictures, and its standard deviation ``score_std``. The reference plays no
    part."""

    kind: Literal["score"] = "score"
    split_size: int = Field(default=5000, ge=1, le=10_000_000)
    """Pictures in a split; fewer pictures make a single split, with deviation 0."""
    splits: Literal["shuffled", "consecutive"] | None = None
    """``shuffled``: as many whole splits as possible, drawn by `seed`, with left-over pictures spread among them.
    ``consecutive``: the published form, in the order of the pictures, with equal weight for a shorter last split (ADM's
    evaluator). None: consecutive with Inception, otherwise shuffled."""
    seed: Seed = 0
    needs: ClassVar[Part] = "logits"
    compares: ClassVar[bool] = False

    @property
    def least(self) -> int:
        return 1

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        probabilities = self.known(generated.logits).double().softmax(1)
        count = len(probabilities)
        if self.splits == "consecutive":
            scores = inception_scores(probabilities, blocks(count, self.split_size))
        else:
            parts = equal_parts(count, max(count // self.split_size, 1))
            scores = inception_scores(shuffled(probabilities, self.seed), parts)
        return {"score": float(scores.mean()), "score_std": float(scores.std(correction=0))}

    def note(self, count: int) -> str | None:
        if self.splits != "consecutive" or count <= self.split_size:
            return None
        short = count % self.split_size
        last = f"; the last split has {short} and counts as much" if short else ""
        return f"score: splits of {self.split_size} pictures in their order, as published{last}"


def inception_scores(probabilities: Tensor, splits: list[slice]) -> Tensor:
    """The score of each split [S], given class probabilities [N, K] whose rows sum to 1, and each split's rows."""
    entropy = torch.special.entr  # -p ln p, 0 at p = 0
    scores = [entropy(p.mean(0)).sum() - entropy(p).sum(1).mean() for p in (probabilities[split] for split in splits)]
    return torch.stack(scores).exp()


def blocks(count: int, size: int) -> list[slice]:
    """Consecutive splits of `size`, the last perhaps shorter (ADM's evaluator)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
