"""RePaint (Lugmayr et al. 2022): a model that was not trained for it fills in what is missing of a picture.

After every step t → s what is known is pasted, noised to the level s (equation 8). The model could not foresee what is pasted,
so that the two parts do not match; therefore the walk jumps back by j levels now and then, by noising, and goes down again, r
times in all (algorithm 1; the jumps of appendix B).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.level import Level
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine
from lodestar.samplers.base import Sampler, State


def walk(steps: Sequence[Transition], jump: int, resamples: int) -> Iterator[tuple[Transition, Level | None]]:
    """The steps in the order in which they are taken, each with the noisier level that is jumped back to after it, if any.

    From every `jump`-th level, counted from the cleanest noisy one, it goes back `jump` levels, `resamples` − 1 times.
    """
    left = dict.fromkeys(range(len(steps) - 1, jump - 1, -jump), resamples - 1)
    place = 0
    while place < len(steps):
        step = steps[place]
        place += 1
        if left.get(place, 0) > 0:
            left[place] -= 1
            place -= jump
            yield step, steps[place].t
        else:
            yield step, None


def repaint(
    sampler: Sampler, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise, known: Tensor, mask: Tensor,
    jump: int, resamples: int,
) -> Iterator[State]:  # fmt: skip
    """Sample x [B, ...] from the level steps[0].t down to clean data that agrees with `known` exactly wherever `mask` is False.

    known: clean data [B, ...]. mask: bool, broadcast over x, True where something is to be made. A state for every step taken. A
    sampler with a memory begins anew at each of them, because what is pasted and noised is not what it remembers; so does
    one that chooses its own steps.
    """
    for index, (step, above) in enumerate(walk(steps, jump, resamples)):
        *_, state = sampler(denoise, x, [step], noise)  # several where the sampler chooses its own
        s = step.s
        pasted = known if s.sigma == 0 else combine((s.alpha, known), (s.sigma, noise(known)))
        x = torch.where(mask, state.x, pasted)
        yield State(x, state.estimate, index)
        if above is not None:
            # j steps of the forward chain in one: their noises add up to this one's.
            x = combine((above.alpha / s.alpha, x), (Transition(above, s).beta ** 0.5, noise(x)))
