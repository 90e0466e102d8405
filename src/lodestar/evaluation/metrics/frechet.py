"""Fréchet distance between Gaussians fitted to two sets of features.

Dowson and Landau 1982, "The Fréchet distance between multivariate normal distributions", eq. 4; on Inception features it is
FID (Heusel et al. 2017, arXiv:1706.08500, eq. 6):

    d² = |μ₁ - μ₂|² + Tr(C₁ + C₂ - 2 (C₁ C₂)^½)

C₁ C₂ is similar to the symmetric C₁^½ C₂ C₁^½, whose roots of eigenvalues are the singular values of C₁^½ C₂^½. So no complex
number ever arises, and a covariance without full rank (fewer pictures than features) needs no jitter on its diagonal.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor

from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics


class Frechet(BaseMetric):
    """Fréchet distance of the features, ``frechet``: 0 for equal Gaussians.

    Falls with the number of pictures: compare equal counts only.
    """

    kind: Literal["frechet"] = "frechet"
    needs: ClassVar[Part] = "moments"

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        ours, theirs = generated.moments, reference.moments
        return {"frechet": float(frechet_distance(ours.mean, ours.covariance, theirs.mean, theirs.covariance))}


def frechet_distance(mean1: Tensor, covariance1: Tensor, mean2: Tensor, covariance2: Tensor) -> Tensor:
    """The squared distance d² (0-d) between two Gaussians: means [D], covariances [D, D], float64."""
    trace = covariance1.trace() + covariance2.trace() - 2 * trace_sqrt_product(covariance1, covariance2)
    return ((mean1 - mean2) ** 2).sum() + trace


def trace_sqrt_product(covariance1: Tensor, covariance2: Tensor) -> Tensor:
    """Tr (C₁ C₂)^½ (0-d) of two symmetric positive semi-definite matrices [D, D]."""
    values: Tensor = torch.linalg.svdvals(_sqrt(covariance1) @ _sqrt(covariance2))
    return values.sum()


def _sqrt(covariance: Tensor) -> Tensor:
    values: Tensor
    vectors: Tensor
    values, vectors = torch.linalg.eigh(covariance)
    # Below this an eigenvalue is a rounding error of zero, with a root 1e8 times as large.
    noise = values[-1].clamp(min=0) * torch.finfo(values.dtype).eps * len(values)
    return (vectors * values.where(values > noise, 0.0).sqrt()) @ vectors.T
