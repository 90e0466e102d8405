"""Confidence intervals over repeated measurements."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from lodestar.config import Problem


def check(repeats: int) -> None:
    """Raise Problem unless something is measured at least once."""
    if repeats < 1:
        raise Problem(f"repeats is {repeats}: at least 1")


def half_width(values: Sequence[float], confidence: float = 0.95) -> float:
    """Half of the width of Student's interval for the mean of independent normal values, at least two of them.

    It covers what differs between the values and nothing else: pictures sampled from other seeds, but not another reference
    and not the model trained again.
    """
    count = len(values)
    assert count > 1, "one value has no spread"
    return student(count - 1, confidence) * float(np.std(values, ddof=1)) / math.sqrt(count)


def student(freedom: int, confidence: float = 0.95) -> float:
    """The t for which a Student-distributed number of so many degrees of freedom lies in ±t with this probability.

    With t = √ν tan θ its density becomes proportional to cosᵛ⁻¹ θ on (-π/2, π/2), which is integrated numerically.
    """
    theta = np.linspace(0, math.pi / 2, 100_001)
    density = np.cos(theta) ** (freedom - 1)
    mass = np.concatenate([[0.0], np.cumsum(density[1:] + density[:-1])])
    return math.sqrt(freedom) * math.tan(np.interp(confidence * mass[-1], mass, theta))
