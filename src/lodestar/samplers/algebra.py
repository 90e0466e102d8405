"""The algebra of samplers: weighted sums of tensors, steps of the probability-flow ODE, exponential integrators."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, LevelSource, Scalar, spread
from lodestar.core.transition import Transition

Term = tuple[Scalar, Tensor]
"""A tensor and its factor."""

Value = tuple[Level, Tensor]
"""A value x̂₀ or ε̂ [B, ...], and its level."""

Target = Literal["x0", "epsilon"]
"""The slowly changing quantity of an exponential integrator: x̂₀ (DPM-Solver++) or ε̂ (DPM-Solver)."""

Taper = Annotated[int, Field(ge=1, le=4)]
"""Order of the step to the lowest noisy level, rising by one for each step before; 4, the highest order, means no fall.

On plans even in time that step is by far the widest in λ, and a third order goes wrong there. Published DPM-Solver++ falls to 1
below 15 steps (later 10), UniPC always; diffusers, counting the step to clean data too, falls to 2. The order of the step to
clean data is bounded by this too. No effect on samplers of this order or below.
"""

Variable = Literal["ratio", "time"]
"""Independent variable of an ODE solver: σ/α, in which x/α moves by ε̂ alone, or the time of the schedule.

The solution is the same; discretisation errors differ (Karras et al. 2022, section 3). Score-based models (Song et al. 2021) are
solved in time. In a chain's time, σ changes fastest at low noise, so few steps leave noise; in σ/α a single data point is reached
exactly in any number of steps.
"""


WEIGHT, SHARE, CHANGE = 27.0, 12.0, 3.2
"""Bounds of `steady` on differences of ε̂ in a step: the least that leave every recorded output of published settings unchanged
(the most demanding are DPM-Solver's steps from σ/α = 37 to 0.9, 0.18 to 0.01 and 5.9 to 0.04)."""


def tapered(order: int, taper: int, steps: Sequence[Transition], index: int) -> int:
    """The order of a step, tapered at the end of a method of this order; see `Taper`."""
    lowest = len(steps) - (2 if steps[-1].s.sigma == 0 else 1)
    return min(order, taper + max(0, lowest - index))


def combine(*terms: Term) -> Tensor:
    """The sum Σ factor·tensor, with one tensor operation a term."""
    (factor, tensor), *rest = terms
    total = tensor * spread(factor, tensor)
    for factor, tensor in rest:
        total = total + spread(factor, tensor) * tensor if isinstance(factor, Tensor) else torch.add(total, tensor, alpha=factor)
    return total


def renoised(estimate: Estimate, s: Level) -> tuple[Estimate, list[Term]]:
    """The estimate to step from towards s, and terms to add to the result.

    Without CFG++, the estimate itself and no terms. With CFG++ (`Estimate.renoise` given), the estimate with x̂₀ = renoise, which
    samplers with memory also remember, and terms for α_s·(x̂₀ − renoise): the data of one estimate and the noise of the other
    (Chung et al. 2024).
    """
    if estimate.renoise is None:
        return estimate, []
    other = replace(estimate, x0=estimate.renoise, renoise=None)
    return other, [(s.alpha, estimate.x0), (-s.alpha, other.x0)]


def follow(t: Level, s: Level, deviation: Scalar | None = None) -> tuple[Scalar, Scalar]:
    """Factors of x̂₀ and x in α_s·x̂₀ + deviation·ε̂, where ε̂ = (x − α_t·x̂₀)/σ_t; the deviation is σ_s if not given.

    With σ_s this is Euler's step of the probability-flow ODE in x/α over σ/α, which equals DDIM's at η = 0.
    """
    slope = (s.sigma if deviation is None else deviation) / t.sigma
    return s.alpha - slope * t.alpha, slope


def drift(t: Level, levels: LevelSource) -> tuple[float, float]:
    """Factors of x̂₀ and x in dx/dt = α̇·x̂₀ + σ̇·ε̂, the probability-flow ODE in the schedule's time.

    Song et al. 2021, equation 13; Karras et al. 2022, equation 4, where α is s(t) and σ is s(t)·σ(t).
    """
    of_x0, of_eps = levels.rates(t)
    slope = of_eps / float(t.sigma)
    return of_x0 - slope * float(t.alpha), slope


def check_rates(steps: Sequence[Transition]) -> None:
    """Raise Problem where a noisy step begins at a level without a rate of change in time: pure noise, or a chain of one."""
    for step in steps:
        if step.s.sigma > 0:
            step.levels.rates(step.t)


def stride(step: Transition, share: float = 1.0) -> tuple[float, float]:
    """Factors of x̂₀ and x in a `share` of Euler's step in the schedule's time, x + share·(s − t)·dx/dt."""
    of_x0, of_x = drift(step.t, step.levels)
    width = share * float(step.s.time - step.t.time)
    return width * of_x0, 1 + width * of_x


def euler(estimate: Estimate, s: Level) -> list[Term]:
    """Euler's step to s, in terms of x̂₀."""
    of_x0, of_x = follow(estimate.level, s)
    return [(of_x0, estimate.x0), (of_x, estimate.x)]


def lead(estimate: Estimate, s: Level, *past: Term) -> Tensor:
    """Euler's step to s plus Σ factor·(past ε̂ − ε̂): a linear multistep method, with one operation per tensor."""
    t = estimate.level
    of_x0, of_x = follow(t, s)
    total = sum(factor for factor, _ in past) / t.sigma
    return combine((of_x0 + total * t.alpha, estimate.x0), (of_x - total, estimate.x), *past)


def steady(t: Level, s: Level, *others: tuple[float, Level]) -> bool:
    """True if Σ w_j·(ε̂_j − ε̂_t) may be added to Euler's step from t to s; `others` are the w_j and the levels of the ε̂_j.

    Solvers of higher order in ε̂ differ from Euler's method by such a sum. At high noise, if a step is wide in log σ/α, the sum
    leaves the range of the data: from σ/α = 20,000 to 10, as on a cosine chain, w is 1,000. There are three bounds, in units of
    x_s. An error of an ε̂ is multiplied by w: Σ |w| ≤ `WEIGHT`. Extrapolation of a short step over a long one is limited: Σ |w| ≤
    `SHARE` times the weight of ε̂_t in Euler's step. For data of unit variance, whose ε̂ is σ times x in units of its deviation,
    the sum is known: |Σ w_j·(σ_j − σ_t)| ≤ `CHANGE`. A step that is not steady is replaced by Euler's, in terms of x̂₀, with at
    most α_s as x̂₀'s factor. No step from pure noise (α = 0) is steady.
    """
    if t.alpha == 0:
        return False
    here, size = _unit_sigma(t), math.hypot(s.alpha, s.sigma)
    weight = sum(abs(weight) for weight, _ in others)
    change = sum(weight * (_unit_sigma(level) - here) for weight, level in others)
    own = abs(float(s.sigma - s.alpha * t.ratio))
    return weight <= WEIGHT * size and weight <= SHARE * own and abs(change) <= CHANGE * size


def _unit_sigma(level: Level) -> float:
    """σ where α² + σ² = 1."""
    return float(level.sigma) / math.hypot(level.alpha, level.sigma)


def refresh(step: Transition, eta: float) -> tuple[float, float]:
    """Standard deviation of the fresh noise, and the remaining deviation to follow ε̂ to: (std, deviation), std² = min(η²·β̃,
    σ_s²)."""
    sigma = float(step.s.sigma)
    if eta == 0:
        return 0.0, sigma
    std = min(eta * float(step.small) ** 0.5, sigma)
    return std, (sigma**2 - std**2) ** 0.5


def exponential(t: Level, s: Level, target: Target) -> tuple[float, float, float]:
    """Coefficients (kept, of, width) of x_s = kept·x + of·∫ e^{τ − width}·value dτ over 0 … width, the exact solution of the ODE.

    In λ = log(α/σ) the width is λ_s − λ_t if the value is x̂₀, and its negative if the value is ε̂: exchanging α and σ turns one
    form into the other (Lu et al. 2022, "DPM-Solver++", section 4).
    """
    width = float(s.half_logsnr - t.half_logsnr)
    if target == "x0":
        return float(s.sigma / t.sigma), float(s.alpha), width
    return float(s.alpha / t.alpha), float(s.sigma), -width


def single(estimates: Sequence[Estimate], s: Level, target: Target, expand: bool) -> list[Term]:
    """A single-step exponential integrator's step to s, not clean, from the first estimate's x by all estimates.

    estimates: at the begin of the step and at up to two stages in it. expand: weight the changes of the value as in its Taylor
    expansion; otherwise by the newest alone: with (1 − e^{−h})/2 after one stage, with φ₂ after two (Lu et al. 2022,
    "DPM-Solver", algorithms 1 and 2; "DPM-Solver++", algorithm 1). Euler's step from the last stage where differences of ε̂ are
    not `steady`.
    """
    begin, *stages = estimates
    t = begin.level
    if not stages and target == "epsilon":
        return euler(begin, s)
    kept, of, width = exponential(t, s, target)
    gain = -math.expm1(-width)
    if not stages:
        return [(kept, begin.x), (of * gain, begin.x0)]
    inverses = [abs(width) / abs(float(stage.level.half_logsnr - t.half_logsnr)) for stage in stages]
    phi_2 = 1 - gain / width
    if len(stages) == 1:
        weights = [of * (phi_2 if expand else gain / 2)]
    elif not expand:
        weights = [0.0, of * phi_2]
    else:
        inverse_1, inverse_2 = inverses
        apart, phi_3 = 1 / inverse_2 - 1 / inverse_1, phi_2 / width - 0.5
        weights = [of * (phi_2 / inverse_2 + 2 * phi_3) / apart, -of * (phi_2 / inverse_1 + 2 * phi_3) / apart]
    factors = [weight * inverse for weight, inverse in zip(weights, inverses, strict=True)]
    if target == "epsilon" and not steady(t, s, *zip(factors, (stage.level for stage in stages), strict=True)):
        return euler(stages[-1], s)
    value, *values = (estimate.x0 if target == "x0" else estimate.eps for estimate in estimates)
    return [(kept, begin.x), (of * gain - sum(factors), value), *zip(factors, values, strict=True)]


def blocks(steps: Sequence[Transition], size: int, fast: bool = False) -> Iterator[list[Transition]]:
    """The steps in groups of `size`, with a step from pure noise and a step to clean data alone: no λ = log(α/σ) spans them.

    fast: if the others are whole groups, the last group is split into one of size − 1 and one of 1.
    """
    spanned = [step for step in steps if step.t.alpha > 0 and step.s.sigma > 0]
    ends = spanned[-2:-1] if fast and len(spanned) % size == 0 else []
    block: list[Transition] = []
    for step, after in zip(steps, [*steps[1:], None], strict=True):
        block.append(step)
        if len(block) == size or step.t.alpha == 0 or after is None or after.s.sigma == 0 or step in ends:
            yield block
            block = []
