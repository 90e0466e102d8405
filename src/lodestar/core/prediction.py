"""Predictions: the network's target, a linear map of clean data and noise, target = a·x₀ + b·ε.

With x = α·x₀ + σ·ε the map inverts to x̂₀ = (b·x − σ·output)/(α·b − σ·a), so a parameterization is two coefficients.

    epsilon   (0, 1)                 DDPM
    x0        (1, 0)
    v         (−σ, α)                Salimans and Ho 2022
    score     (0, −1/σ)              Song et al. 2021
    flow      (−1, 1)                rectified flow: dx/dt of x = (1 − t)·x₀ + t·ε
    edm       Karras et al. 2022, table 1, for any α: the network sees c_in·x/α
    consistency  EDM's with the boundary condition of consistency models (Song et al. 2023, appendix C)
    previous  posterior mean of the next cleaner x of the chain (DDPM's μ̃)
"""

from __future__ import annotations

import abc
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor

from lodestar.config import Config
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, Scalar, spread
from lodestar.core.schedule import AnySchedule


class Prediction(Config, abc.ABC):
    """A parameterization: the linear target of a network."""

    @abc.abstractmethod
    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        """Coefficients (a, b) of target = a·x₀ + b·ε at this level."""

    def input_scale(self, level: Level) -> Scalar:
        """The factor of x at the network's input."""
        return 1.0

    def target(self, x0: Tensor, eps: Tensor, level: Level) -> Tensor:
        """The network's target for clean data x0 and noise eps, both [B, ...]."""
        a, b = self.coefficients(level)
        return spread(a, x0) * x0 + spread(b, x0) * eps

    def x0(self, output: Tensor, x: Tensor, level: Level) -> Tensor:
        """x̂₀ [B, ...] of a network output [B, ...] at x."""
        a, b = self.coefficients(level)
        scale = 1 / (level.alpha * b - level.sigma * a)
        return spread(b * scale, x) * x - spread(level.sigma * scale, x) * output


class Epsilon(Prediction):
    """The noise ε (DDPM)."""

    kind: Literal["epsilon"] = "epsilon"

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 0.0, 1.0


class X0(Prediction):
    """The clean data x₀."""

    kind: Literal["x0"] = "x0"

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 1.0, 0.0


class Velocity(Prediction):
    """The velocity v = α·ε − σ·x₀ (Salimans and Ho 2022)."""

    kind: Literal["v"] = "v"

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return -level.sigma, level.alpha


class Score(Prediction):
    """The score ∇ₓ log p(x) = −ε/σ (Song et al. 2021)."""

    kind: Literal["score"] = "score"

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return 0.0, -1 / level.sigma


class Flow(Prediction):
    """The velocity ε − x₀ of rectified flow."""

    kind: Literal["flow"] = "flow"

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        return -1.0, 1.0


class EDM(Prediction):
    """EDM's F, with D(x̄) = c_skip·x̄ + c_out·F(c_in·x̄), where x̄ = x/α has noise of standard deviation σ/α."""

    kind: Literal["edm"] = "edm"
    sigma_data: float = Field(default=0.5, ge=1e-6, le=1e6)

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        ratio, data = level.ratio, self.sigma_data
        total = (ratio**2 + data**2) ** 0.5
        # F = (x0 − c_skip·(x0 + ratio·eps)) / c_out
        return ratio / (data * total), -data / total

    def input_scale(self, level: Level) -> Scalar:
        return 1 / (level.alpha * (level.ratio**2 + self.sigma_data**2) ** 0.5)


class Consistency(EDM):
    """EDM's F with the boundary condition c_skip = 1, c_out = 0 at σ/α = sigma_min (Song et al. 2023, appendix C).

    D(x̄) = c_skip·x̄ + c_out·F(c_in·x̄). x̂₀ is then a sample, not an expectation, of the data: the end of the probability-flow
    ODE from x.
    """

    kind: Literal["consistency"] = "consistency"  # type: ignore[assignment]
    sigma_min: float = Field(default=0.002, ge=1e-6, le=1e6)

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        skip, out = self._scalings(level)
        # F = (x0 − c_skip·(x0 + ratio·eps)) / c_out
        return (1 - skip) / out, -skip * level.ratio / out

    def x0(self, output: Tensor, x: Tensor, level: Level) -> Tensor:
        # Not by the coefficients, which are infinite at c_out = 0.
        skip, out = self._scalings(level)
        return spread(skip / level.alpha, x) * x + spread(out, x) * output

    def _scalings(self, level: Level) -> tuple[Scalar, Scalar]:
        """The scalings c_skip and c_out."""
        ratio, data = level.ratio, self.sigma_data
        above = ratio - self.sigma_min
        return data**2 / (above**2 + data**2), above * data / (ratio**2 + data**2) ** 0.5


class Previous(Prediction):
    """The mean of q(x_{t−1} | x_t, x₀) in the chain of this schedule."""

    kind: Literal["previous"] = "previous"
    schedule: AnySchedule

    def coefficients(self, level: Level) -> tuple[Scalar, Scalar]:
        of_x0, of_x = self.schedule.step_down(level).coefficients()
        return of_x0 + of_x * level.alpha, of_x * level.sigma


AnyPrediction = Annotated[Epsilon | X0 | Velocity | Score | Flow | EDM | Consistency | Previous, Field(discriminator="kind")]


@dataclass(frozen=True, slots=True)
class Output:
    """A network's output, before conversion to an estimate."""

    value: Tensor
    """The prediction [B, ...]."""
    frac: Tensor | None = None
    """Learned variance as a fraction in [−1, 1] between its bounds, of value's shape."""
    logvar: Tensor | None = None
    """Learned log variance outright, of value's shape."""

    def estimate(self, x: Tensor, level: Level, prediction: Prediction) -> Estimate:
        """The estimate of this output at x."""
        return Estimate(x, level, prediction.x0(self.value, x, level), self.frac, self.logvar)

    def with_fixed_mean(self) -> Output:
        """The output without gradient into the prediction."""
        return replace(self, value=self.value.detach())
