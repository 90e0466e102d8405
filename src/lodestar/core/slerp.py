"""Spherical interpolation (Shoemake 1985), which keeps the norm of Gaussian noise along the path."""

from __future__ import annotations

import torch
from torch import Tensor

from lodestar.core.level import spread

_PARALLEL = 1e-6
"""The least sine of the angle for an arc; below, a straight line."""


def slerp(a: Tensor, b: Tensor, weight: Tensor) -> Tensor:
    """Spherical interpolation sin((1 − w)·θ)/sin θ · a + sin(w·θ)/sin θ · b per sample, θ the angle between a and b.

    a and b: [B, ...]. weight: w in [0, 1], float64 [B]; 0 is exactly a and 1 exactly b. A straight line where they are parallel.
    """
    flat_a, flat_b = a.double().flatten(1), b.double().flatten(1)
    angle = torch.cosine_similarity(flat_a, flat_b).clamp(-1, 1).acos()
    sine, weight = angle.sin(), weight.to(angle)
    curved = sine > _PARALLEL
    of_a = torch.where(curved, ((1 - weight) * angle).sin() / sine, 1 - weight)
    of_b = torch.where(curved, (weight * angle).sin() / sine, weight)
    return spread(of_a, a) * a + spread(of_b, b) * b
