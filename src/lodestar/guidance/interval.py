"""Guidance in a limited interval of noise (Kynkäänniemi et al. 2024): early guidance costs diversity, late guidance has little
effect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, Self

from pydantic import Field, model_validator
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Context, Guidance, Limit


class Interval(Guidance):
    """An interval low < σ/α ≤ high for the guidance listed before; elsewhere the model alone is evaluated, at its own cost."""

    kind: Literal["interval"] = "interval"
    low: float = Field(ge=0, le=1e9)
    high: float = Field(gt=0, le=1e9)

    @model_validator(mode="after")
    def _rising(self) -> Self:
        if self.low >= self.high:
            raise ValueError(f"low {self.low:g} has to be below high {self.high:g}")
        return self

    @property
    def reuses(self) -> bool:
        return True

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        def denoise(x: Tensor, level: Level) -> Estimate:
            return inner(x, level) if self.holds(level) else context.plain(x, level)

        return denoise

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        limited = [each for each in before if not isinstance(each, Limit)]
        if not limited or isinstance(limited[-1], Interval):
            return "interval limits the guidance listed before it, and there is none: write cfg or classifier in front"
        return None

    def holds(self, level: Level) -> bool:
        """True if a level, one for a whole batch, is inside."""
        ratio = level.ratio
        assert isinstance(ratio, float), "one level for the whole batch"
        return self.low < ratio <= self.high
