"""Confidence intervals over repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lodestar.config import Problem


def check(repeats: int) -> None:
    """Raise Problem unless the number of repeats is at least 1."""
    if repeats < 1:
        raise Problem(f"repeats is {repeats}: at least 1")


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half-width of Student's confidence interval for the mean of independent normal values, at least two.

    The interval covers the variation between the values alone: pictures sampled from other seeds, but not another reference or
    another training.
    """
    count = len(values)
    assert count > 1, "one value has no spread"
    return student(count - 1, confidence) * float(np.std(values, ddof=1)) / math.sqrt(count)


def student(freedom: int, confidence: float = 0.95) -> float:
    """Quantile t of Student's distribution: a number of `freedom` degrees of freedom lies in ±t with probability `confidence`.

    With t = √ν tan θ the density becomes proportional to cosᵛ⁻¹ θ on (-π/2, π/2), integrated numerically.
    """
    theta = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(theta) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(confidence * mass[-1], mass, theta))
