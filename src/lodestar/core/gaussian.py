"""Divergences and likelihoods of diagonal Gaussians, in nats. Arguments broadcast; nothing is summed."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lodestar.core.level import Scalar


def kl(mean1: Tensor, logvar1: Scalar, mean2: Tensor, logvar2: Scalar) -> Tensor:
    """KL(N(mean1, exp logvar1) ‖ N(mean2, exp logvar2)) per element."""
    logvar1, logvar2 = (torch.as_tensor(value).to(mean1) for value in (logvar1, logvar2))
    return 0.5 * (-1.0 + logvar2 - logvar1 + torch.exp(logvar1 - logvar2) + (mean1 - mean2) ** 2 * torch.exp(-logvar2))


def approximate_cdf(x: Tensor) -> Tensor:
    """The tanh approximation of the standard normal's distribution function, as used by the published bounds."""
    return 0.5 * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * x**3)))


def discretized_log_likelihood(x0: Tensor, mean: Tensor, log_scale: Tensor) -> Tensor:
    """log probability of 8-bit data x0 in [−1, 1] under a Gaussian integrated over bins of width 2/255 (DDPM, equation 13).

    log_scale: log standard deviation. The outermost bins reach to infinity. Tail probabilities are clamped at 1e-12.
    """
    centered, inverse = x0 - mean, torch.exp(-log_scale)
    upper = approximate_cdf(inverse * (centered + 1.0 / 255.0))
    lower = approximate_cdf(inverse * (centered - 1.0 / 255.0))
    probability = torch.where(x0 < -0.999, upper, torch.where(x0 > 0.999, 1.0 - lower, upper - lower))
    return probability.clamp(min=1e-12).log()
