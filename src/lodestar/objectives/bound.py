"""The variational bound, level by level (DDPM, equation 5), in bits per dimension."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from lodestar.config import Problem
from lodestar.core.estimate import Denoise, Estimate, Noise
from lodestar.core.gaussian import discretized_log_likelihood, kl
from lodestar.core.level import Level, log, spread
from lodestar.core.prediction import Output, Prediction
from lodestar.core.schedule import Schedule
from lodestar.core.transition import FixedVariance, Transition
from lodestar.objectives.base import Draw, Losses, Objective, mean_flat


def reverse_logvar(step: Transition, estimate: Estimate, fixed: FixedVariance = "small") -> Tensor:
    """The log variance of p(x_s | x_t), learned if the model has it, else fixed; broadcastable to x."""
    if estimate.frac is not None:
        return step.learned_logvar(estimate.frac)
    if estimate.logvar is not None:
        return estimate.logvar
    return torch.as_tensor(spread(step.logvar(fixed), estimate.x)).to(estimate.x)


def bound_term(step: Transition, estimate: Estimate, x0: Tensor, fixed: FixedVariance = "small") -> Tensor:
    """The bound's term for one step, bits per dimension [B].

    KL(q(x_s | x_t, x₀) ‖ p(x_s | x_t)), or −log p(x₀ | x_t) of 8-bit data where s is clean.
    """
    mean, logvar = step.mean(estimate.x0, estimate.x), reverse_logvar(step, estimate, fixed)
    divergence = kl(step.mean(x0, estimate.x), spread(step.logvar("small"), x0), mean, logvar)
    decoder = -discretized_log_likelihood(x0, mean, 0.5 * logvar.expand_as(mean))
    to_clean = torch.as_tensor(step.s.sigma == 0, device=x0.device)
    return torch.where(to_clean, mean_flat(decoder), mean_flat(divergence)) / math.log(2.0)


def prior_term(last: Level, x0: Tensor) -> Tensor:
    """The prior term KL(q(x_T | x₀) ‖ N(0, 1)) at the noisiest level, bits per dimension [B]."""
    mean = spread(last.alpha, x0) * x0
    logvar = spread(2 * log(last.sigma), x0)
    return mean_flat(kl(mean, logvar, torch.zeros_like(mean), 0.0)) / math.log(2.0)


@dataclass(frozen=True, slots=True)
class BitsPerDimension:
    """The bound on −log₂ p(x₀) per dimension, and its terms, with steps in sampling order, the noisiest first."""

    prior: Tensor
    """The prior term [B]."""
    terms: Tensor
    """The bound's term at each step [B, steps]; the last is the likelihood of the 8-bit data."""
    x0_mse: Tensor
    """Squared error of x̂₀ at each step [B, steps]."""
    eps_mse: Tensor
    """Squared error of ε̂ at each step [B, steps]."""

    @property
    def total(self) -> Tensor:
        """The bound [B]."""
        return self.prior + self.terms.sum(1)


@torch.no_grad()
def bits_per_dimension(
    denoise: Denoise, steps: Sequence[Transition], x0: Tensor, noise: Noise, fixed: FixedVariance = "small"
) -> BitsPerDimension:
    """The bound for 8-bit data x0 [B, ...] in [−1, 1], with one draw of noise a step (DDPM, equation 5).

    steps: a plan's, down to clean data. fixed: the reverse variance of a model that has learned none.
    """
    terms, x0_mse, eps_mse = [], [], []
    for step in steps:
        eps = noise(x0)
        x = spread(step.t.alpha, x0) * x0 + spread(step.t.sigma, x0) * eps
        estimate = denoise(x, step.t)
        terms.append(bound_term(step, estimate, x0, fixed))
        x0_mse.append(mean_flat((estimate.x0 - x0) ** 2))
        eps_mse.append(mean_flat((estimate.eps - eps) ** 2))
    return BitsPerDimension(prior_term(steps[0].t, x0), *(torch.stack(values, 1) for values in (terms, x0_mse, eps_mse)))


class Bound(Objective):
    """The variational bound: its term at the drawn level (the published "KL")."""

    kind: Literal["bound"] = "bound"
    rescaled: bool = False
    """Multiply the term by T, so the mean over the levels is the bound on all bits except the prior's ("rescaled KL")."""
    fixed: FixedVariance = "small"
    """Reverse variance of a denoiser without a learned one."""

    @property
    def stepwise(self) -> bool:
        return True

    def check(self, learned: bool) -> None:
        if learned and self.fixed != "small":
            raise Problem(f"objective 'bound': fixed={self.fixed!r} has no effect, because this denoiser learns its variance")

    def __call__(self, draw: Draw, output: Output, prediction: Prediction, schedule: Schedule) -> Losses:
        estimate = output.estimate(draw.x, draw.level, prediction)
        term = bound_term(schedule.step_down(draw.level), estimate, draw.x0, self.fixed)
        return Losses(schedule.timesteps * term if self.rescaled else term, {"vb": term.detach()})
