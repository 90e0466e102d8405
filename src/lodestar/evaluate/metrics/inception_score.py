"""Inception-style score: sure about each picture, varied over all of them.

Salimans et al. 2016, arXiv:1606.03498, section 4. With p_n the class probabilities of picture n and p̄ their mean over a split,

    score = exp( mean_n KL(p_n ‖ p̄) ) = exp( H(p̄) - mean_n H(p_n) ),

from 1 to the number of classes. It is Inception's when the classifier is; the number depends on how the pictures are split.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.evaluate.metrics.base import BaseMetric
from lodestar.evaluate.statistics import Part, Statistics


class Score(BaseMetric):
    """Mean ``score`` over consecutive splits of `split_size` generated pictures, and the deviation ``score_std``.

    A shorter last split counts like the others, as in ADM's evaluator; one split deviates by 0. The reference plays no part.
    """

    kind: Literal["score"] = "score"
    split_size: int = Field(default=5000, ge=1, le=10_000_000)
    needs: ClassVar[Part] = "logits"
    compares: ClassVar[bool] = False

    @property
    def least(self) -> int:
        return 1

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        logits = self.known(generated.logits)
        scores = inception_scores(logits.double().softmax(1), blocks(len(logits), self.split_size))
        return {"score": float(scores.mean()), "score_std": float(scores.std(correction=0))}


def inception_scores(probabilities: Tensor, splits: list[slice]) -> Tensor:
    """The score of each split [S], given class probabilities [N, K] whose rows sum to 1, and each split's rows."""
    entropy = torch.special.entr  # -p ln p, 0 at p = 0
    scores = [entropy(p.mean(0)).sum() - entropy(p).sum(1).mean() for p in (probabilities[split] for split in splits)]
    return torch.stack(scores).exp()


def blocks(count: int, size: int) -> list[slice]:
    """Consecutive splits of `size`, the last one perhaps shorter (ADM's evaluator)."""
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]
