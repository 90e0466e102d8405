"""DPM-Solver++ as a single-step method on the reverse SDE, k-diffusion's "DPM++ SDE": the midpoint method, noise at every stage.

Two steps of the plan make one of the solver. The first goes to the level between, the second from the first x again, all the way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import Term, blocks, combine, exponential, refresh
from lodestar.samplers.base import Sampler, State


class DPMppSDE(Sampler):
    """DPM++ SDE, with one evaluation a step of the plan; a step that is left over, and the last, are of first order."""

    kind: Literal["dpmpp_sde"] = "dpmpp_sde"
    eta: float = Field(default=1.0, ge=0, le=100)
    """η, the fraction of the posterior's noise drawn afresh."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        index = 0
        for block in blocks(steps, 2):
            first, begin, before = x, block[0].t, None
            for step in block:
                estimate = denoise(x, step.t).folded()
                if step.s.sigma == 0:
                    x = estimate.x0 * step.s.alpha
                else:
                    std, deviation = refresh(Transition(begin, step.s), self.eta)
                    kept, of, width = exponential(begin, replace(step.s, sigma=deviation), "x0")
                    gain = -of * math.expm1(-width)
                    terms: list[Term] = [(kept, first), (gain, estimate.x0)]
                    if before is not None:
                        # 1/(2·r), where r is the first stage's position in the whole step.
                        share = float(step.s.half_logsnr - begin.half_logsnr) / float(
                            2 * (step.t.half_logsnr - begin.half_logsnr)
                        )
                        terms = [(kept, first), (gain * share, estimate.x0), (gain * (1 - share), before)]
                    if std > 0:
                        terms.append((std, noise(x)))
                    x = combine(*terms)
                before = estimate.x0
                yield State(x, estimate, index)
                index += 1
