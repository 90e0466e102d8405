"""Inversion: a deterministic sampler run upwards, from a picture to its noise.

DDIM (Song et al. 2021, section 4.3, equation 13) and every other solver of the probability-flow ODE run in both directions. The
first step up is special, since no network is trained on clean data. Published code takes the picture for x at the cleanest noisy
level t, with an error of σ_t in any number of steps. Here the last step down, x₀ = (x − σ_t·ε̂(x))/α_t, is inverted instead, with
ε̂ at x = α_t·x₀:

    x_t = α_t·x₀ + σ_t·ε̂(α_t·x₀)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition, transitions
from lodestar.samplers.algebra import combine
from lodestar.samplers.base import Sampler, State


def check_invertible(sampler: Sampler, steps: Sequence[Transition]) -> None:
    """Raise Problem unless this sampler can run these steps (noisy to clean, as in sampling) upwards."""
    if steps[0].t.alpha == 0:
        raise Problem(
            "inversion cannot end at pure noise (zero terminal signal), where nothing is left of a picture: try leading:N"
        )
    # The first step up draws no noise, and yet the picture would not come back.
    sampler.check([Transition(step.s, step.t) for step in reversed(steps)] if sampler.stochastic else _rising(steps))


def invert(sampler: Sampler, denoise: Denoise, x0: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
    """Take the steps (noisy to clean, as in sampling) upwards from clean x0 [B, ...].

    Yields a state for each step, unless the sampler is adaptive; the last state's x is at the noisiest level, steps[0].t.
    """
    level = steps[-1].t
    estimate = denoise(level.alpha * x0, level).folded()
    x = combine((level.alpha, x0), (level.sigma, estimate.eps))
    yield State(x, estimate, 0)
    for state in sampler(denoise, x, _rising(steps), noise):
        yield State(state.x, state.estimate, state.index + 1)


def _rising(steps: Sequence[Transition]) -> list[Transition]:
    """The steps upwards after the first one, from the cleanest noisy level."""
    return transitions([step.t for step in reversed(steps)], steps[0].schedule)
