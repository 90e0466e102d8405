"""DDIM (Song et al. 2021, equation 12): x_s = α_s·x̂₀ + √(σ_s² − std²)·ε̂ + std·z, std² = η²·β̃."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

from pydantic import Field
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.transition import Transition
from lodestar.samplers.algebra import combine, follow, refresh, renoised
from lodestar.samplers.base import Sampler, State


class DDIM(Sampler):
    """DDIM. Deterministic at η = 0, and then invertible: over steps that rise in noise, a picture is encoded. η = 1 is ancestral.

    Published inversions treat the picture as x at the cleanest noisy level: begin there, not at clean data. Raises Problem where
    η > 0 meets a rising step.
    """

    kind: Literal["ddim"] = "ddim"
    eta: float = Field(default=0.0, ge=0, le=1e9)
    """η, the fraction of the posterior's noise drawn afresh; never more than σ_s in all."""
    clipped: bool = True
    """ε̂ follows from x̂₀ after its limit to the range of the data, as in OpenAI's code; if false, from the guided x̂₀ before
    (diffusers' DDIM with `use_clipped_model_output` False)."""

    @property
    def stochastic(self) -> bool:
        return self.eta > 0

    @property
    def renoises(self) -> bool:
        return True

    def __call__(self, denoise: Denoise, x: Tensor, steps: Sequence[Transition], noise: Noise) -> Iterator[State]:
        self.check(steps)
        for index, step in enumerate(steps):
            estimate = denoise(x, step.t).folded(self.renoises)
            believed = estimate
            # No noise is put back at clean data.
            if not self.clipped and estimate.unclipped is not None and step.s.sigma > 0:
                believed = replace(estimate, renoise=estimate.unclipped)
            base, added = renoised(believed, step.s)
            if self.eta == 0 or step.s.sigma == 0:
                of_x0, of_x = follow(step.t, step.s)
                x = combine((of_x0, base.x0), (of_x, x), *added)
            else:
                std, deviation = refresh(step, self.eta)
                of_x0, of_x = follow(step.t, step.s, deviation)
                x = combine((of_x0, base.x0), (of_x, x), *added, (std, noise(x)))
            yield State(x, estimate, index)
