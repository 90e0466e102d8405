"""Confidence intervals: over repeated measurements, and of shares."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

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


@dataclass(frozen=True)
class Share:
    """A share of independent cases, with its 95 % interval (Wilson 1927, eq. 4), which is right near 0 and 1 too."""

    hits: int
    count: int

    def __add__(self, other: Share) -> Share:
        return Share(self.hits + other.hits, self.count + other.count)

    def __float__(self) -> float:
        return self.hits / self.count

    def __str__(self) -> str:
        low, high = self.interval()
        return f"{float(self):.3f} ({low:.3f} to {high:.3f}) of {self.count:,}"

    def half_width(self) -> float:
        """Half the width of the interval."""
        low, high = self.interval()
        return (high - low) / 2

    def interval(self, confidence: float = 0.95) -> tuple[float, float]:
        """The ends of the interval."""
        z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
        middle, n = float(self), self.count
        half = math.sqrt(z2 * (middle * (1 - middle) / n + z2 / (4 * n * n)))
        centre, scale = middle + z2 / (2 * n), 1 + z2 / n
        return max((centre - half) / scale, 0.0), min((centre + half) / scale, 1.0)
