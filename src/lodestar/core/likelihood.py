"""The likelihood of a diffusion model as a continuous normalizing flow, its probability-flow ODE (Song et al. 2021, section 4.3).

Where α² + σ² = 1, with α = cos φ and σ = sin φ, the ODE is dx/dφ = v (Salimans and Ho 2022, appendix D). The coordinate used
here, u = log tan(φ/2) = log(σ/(1 + α)), follows log σ/α at little noise, where details are decided, and ends at 0 in pure noise,
where σ/α is infinite:

    dx/du = σ·v,        log p(x at the cleanest level) = log N(x at the noisiest; 0, 1) + ∫ div(σ·v) du.

The divergence is estimated without bias by signᵀ·∂(σ·v)/∂x·sign for random signs (Skilling 1989; Hutchinson 1990), new ones for
every evaluation, so errors do not accumulate along the path.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor

from lodestar.core.estimate import Denoise, Noise
from lodestar.core.level import Level


def ode_log_density(denoise: Denoise, levels: Sequence[Level], x: Tensor, noise: Noise) -> Tensor:
    """The log density log p(x) of x [B, ...] at the level levels[0], in nats [B].

    levels: scalars with α² + σ² = 1, from the cleanest (σ > 0) to the noisiest, where the density is taken to be N(0, 1). Solved
    by Heun's method, with two evaluations and their gradients a step; the error falls with the square of the step size.
    """
    total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
    for t, s in pairwise(levels):
        step = _place(s) - _place(t)
        slope, divergence = _slope(denoise, t, x, noise)
        ahead, divergence_ahead = _slope(denoise, s, x + step * slope, noise)
        x = x + 0.5 * step * (slope + ahead)
        total += 0.5 * step * (divergence + divergence_ahead)
    return total - 0.5 * (x.double() ** 2 + math.log(2 * math.pi)).flatten(1).sum(1)


def _place(level: Level) -> float:
    """The coordinate u = log(σ/(1 + α))."""
    return math.log(float(level.sigma) / (1 + float(level.alpha)))


def _slope(denoise: Denoise, level: Level, x: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
    """dx/du [B, ...], and an estimate of its divergence [B]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        slope = level.sigma * denoise(x, level).v
        signs = noise(x).sign()
        (product,) = torch.autograd.grad(slope, x, signs)
    return slope.detach(), (signs * product).flatten(1).double().sum(1)
