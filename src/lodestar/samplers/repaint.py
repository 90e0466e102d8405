"""RePaint (Lugmayr et al. 2022): inpainting by a model trained on whole pictures.

After every step t → s the known part is pasted, noised to the level s (equation 8). The model could not foresee the pasted part,
so the two parts do not match; therefore sampling jumps back by j levels now and then, by noising, and goes down again, r times in
all (algorithm 1; the jumps of appendix B).
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
    """The steps in order of execution, each with the noisier level of the jump back after it, if any.

    From every `jump`-th level, counted from the cleanest noisy one, sampling goes back `jump` levels, `resamples` − 1 times.
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
    """Sample x [B, ...] from the level steps[0].t down to clean data equal to `known` wherever `mask` is False.

    known: clean data [B, ...]. mask: bool, broadcast over x, True where pixels are generated. Yields a state for every step. A
    sampler with memory restarts at each step, because pasting changes x; an adaptive one likewise.
    """
    each = sampler.alone(len(steps))
    for index, (step, above) in enumerate(walk(steps, jump, resamples)):
        *_, state = each(denoise, x, [step], noise)  # several where the sampler chooses its own
        s = step.s
        pasted = known if s.sigma == 0 else combine((s.alpha, known), (s.sigma, noise(known)))
        x = torch.where(mask, state.x, pasted)
        yield State(x, state.estimate, index)
        if above is not None:
            # j steps of the forward chain in one: their noises add up to this one's.
            x = combine((above.alpha / s.alpha, x), (Transition(above, s).beta ** 0.5, noise(x)))
