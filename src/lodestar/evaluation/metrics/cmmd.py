"""CMMD: squared maximum mean discrepancy of CLIP embeddings under a Gaussian kernel.

Jayasumana et al. 2024, arXiv:2401.09603, section 4. With embeddings of unit length and k(x, y) = exp(-|x - y|² / 2σ²), σ = 10,

    CMMD = 1000 · ( mean k(x_i, x_j) + mean k(y_i, y_j) - 2 mean k(x_i, y_j) ),

where the means within a set include the pairs (i, i), as in the published implementation: the biased estimator (Gretton et al.
2012, JMLR 13, eq. 5). |x - y|² is at most 4, so the kernel is nearly linear. Needs fewer pictures than the Fréchet distance and
assumes no Gaussian. Published numbers use CLIP ViT-L/14 at 336 pixels.
"""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.core.neighbours import BLOCK, squared_distances
from lodestar.evaluation.metrics.base import BaseMetric
from lodestar.evaluation.statistics import Part, Statistics


class CMMD(BaseMetric):
    """CMMD (``cmmd``) of the features, normalised to unit length; comparable with published numbers for CLIP features alone."""

    kind: Literal["cmmd"] = "cmmd"
    sigma: float = Field(default=10.0, ge=1e-6, le=1e6)
    needs: ClassVar[Part] = "features"

    def __call__(self, generated: Statistics, reference: Statistics) -> dict[str, float]:
        x, y = (F.normalize(each.double(), dim=1) for each in self.both(generated, reference))
        return {"cmmd": 1000 * float(gaussian_mmd2(x, y, self.sigma))}


def gaussian_mmd2(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """The biased estimate of MMD² (0-d) between x [M, D] and y [N, D] under the Gaussian kernel of this width."""
    return _mean_less_one(x, x, sigma) + _mean_less_one(y, y, sigma) - 2 * _mean_less_one(x, y, sigma)


def _mean_less_one(x: Tensor, y: Tensor, sigma: float) -> Tensor:
    """The mean (0-d) of k - 1, in blocks: k itself is too near to 1 for differences of its means to keep their digits."""
    origin = y.mean(0)
    pairs = (squared_distances(a, b, origin) for a in x.split(BLOCK) for b in y.split(BLOCK))
    return torch.stack([torch.expm1(-pair / (2 * sigma**2)).sum() for pair in pairs]).sum() / (len(x) * len(y))
