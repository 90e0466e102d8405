"""A schedule for the scale of guidance: its effect, weighted by the noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Estimate
from lodestar.core.level import Level
from lodestar.guidance.base import Context, Guidance, Limit
from lodestar.guidance.interval import Interval


class Ramp(Guidance):
    """A weight for the effect of the guidance before it, from `start` at pure noise to `end` at clean data.

    x̂₀ and the collected gradient become before + weight·(after − before), so a weight of 2 is twice the scale. In between, the
    weight follows the angle atan(σ/α), which is the time of a cosine schedule.
    """

    kind: Literal["ramp"] = "ramp"
    start: float = Field(ge=0, le=1e3)
    end: float = Field(ge=0, le=1e3)
    shape: Literal["linear", "cosine"] = "linear"

    def __call__(self, inner: Denoise, context: Context) -> Denoise:
        before = context.before
        assert before is not None, "set by compose"

        def denoise(x: Tensor, level: Level) -> Estimate:
            after, weight = inner(x, level), self.weight(level)
            return after if weight == 1 else blended(before(x, level), after, weight)

        return denoise

    def weight(self, level: Level) -> float:
        """The weight at a level, one for a whole batch."""
        ratio = level.ratio
        assert isinstance(ratio, float), "one level for the whole batch"
        place = math.atan(ratio) / (math.pi / 2)
        return self.end + (self.start - self.end) * (place if self.shape == "linear" else (1 - math.cos(math.pi * place)) / 2)

    def objection(self, before: Sequence[Guidance], context: Context) -> str | None:
        if not before or isinstance(before[-1], Interval | Ramp | Limit):
            return "ramp weights the guidance listed right before it, and there is none: write cfg or classifier in front"
        return None


def blended(before: Estimate, after: Estimate, weight: float) -> Estimate:
    """Before + weight·(after − before), of x̂₀, of the gradient and of the x̂₀ whose noise is added back."""

    def between(first: Tensor, second: Tensor) -> Tensor:
        return first + weight * (second - first)

    shift, renoise = after.shift, after.renoise
    if shift is not None:
        shift = weight * shift if before.shift is None else between(before.shift, shift)
    if renoise is not None:
        renoise = between(before.x0 if before.renoise is None else before.renoise, renoise)
    return replace(after, x0=between(before.x0, after.x0), shift=shift, renoise=renoise)


def remembering(context: Context) -> Context:
    """The context with a plain denoiser that remembers its last estimate, also from a doubled batch."""
    plain, pair = remembered(context.plain), context.pair
    if pair is None:
        return replace(context, plain=plain)

    def both(x: Tensor, level: Level) -> tuple[Estimate, Estimate]:
        estimates = pair(x, level)
        plain.keep(x, level, estimates[0])
        return estimates

    return replace(context, plain=plain, pair=both)


def remembered(denoise: Denoise) -> Remembered:
    """The denoiser with a memory of its last estimate: a ramp asks for what its guidance asked for before."""
    return denoise if isinstance(denoise, Remembered) else Remembered(denoise)


class Remembered:
    """A denoiser that remembers its last estimate."""

    def __init__(self, denoise: Denoise) -> None:
        self._denoise = denoise
        self._last: tuple[Tensor, Level, Estimate] | None = None

    def __call__(self, x: Tensor, level: Level) -> Estimate:
        if self._last is None or self._last[0] is not x or self._last[1] != level:
            self.keep(x, level, self._denoise(x, level))
        assert self._last is not None
        return self._last[2]

    def keep(self, x: Tensor, level: Level, estimate: Estimate) -> None:
        """Remember an estimate."""
        self._last = x, level, estimate
