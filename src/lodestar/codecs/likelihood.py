"""Likelihoods of pictures given a decoder's output: Gaussian, or Bernoulli."""

from __future__ import annotations

import abc
import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Kinds
from lodestar.core.gaussian import discretized_log_likelihood

BIN = 2 / 255
"""Width of the bin of an 8-bit value in [−1, 1]."""
_SHARPEST = math.log(BIN / 2)
"""Least logarithm of a standard deviation, of half a bin: a sharper density says nothing more of 8 bits."""
_WIDEST = 5.0


class Likelihood(Config, abc.ABC):
    """A distribution of pictures given a decoder's output."""

    kind: str

    @property
    def outputs(self) -> int:
        """Number of values that the decoder gives for each value of a picture."""
        return 1

    @property
    def shared(self) -> bool:
        """True if a single scale, learned with the weights, is of all values."""
        return False

    @abc.abstractmethod
    def mean(self, out: Tensor) -> Tensor:
        """Expected pictures [B, C, H, W] in [−1, 1], given the output [B, outputs·C, H, W]."""

    @abc.abstractmethod
    def cost(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        """−log p(x) for training, in nats per dimension [B]."""

    def seen(self, x: Tensor, uniform: Tensor) -> Tensor:
        """The pictures that likelihoods are of. uniform: random numbers in [0, 1), shaped as x."""
        return x

    @abc.abstractmethod
    def log_probability(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        """log p(x) of 8-bit pictures, or of others that `seen` gives, in nats [B]."""


class GaussianLikelihood(Likelihood):
    """A Gaussian around the decoder's output. Its density times the width of a bin in training; in measuring, its integral."""

    kind: Literal["gaussian"] = "gaussian"
    variance: Literal["shared", "each", "fixed"] = "shared"
    """Variance: learned and shared by all values, told by the decoder for each value, or fixed."""
    scale: float = Field(default=1.0, ge=1e-3, le=1e3)
    """Standard deviation; of a learned one, where it begins."""

    @property
    def outputs(self) -> int:
        return 2 if self.variance == "each" else 1

    @property
    def shared(self) -> bool:
        return self.variance == "shared"

    def mean(self, out: Tensor) -> Tensor:
        return out[:, : out.shape[1] // self.outputs]

    def cost(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        deviation = self._log_deviation(out, log_scale)
        density = -0.5 * ((x - self.mean(out)) * torch.exp(-deviation)).square() - deviation - 0.5 * math.log(2 * math.pi)
        return -density.flatten(1).mean(dim=1) - math.log(BIN)

    def log_probability(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        mean = self.mean(out)
        return discretized_log_likelihood(x, mean, self._log_deviation(out, log_scale).expand_as(mean)).flatten(1).sum(dim=1)

    def _log_deviation(self, out: Tensor, log_scale: Tensor) -> Tensor:
        told = (
            out[:, out.shape[1] // 2 :] if self.variance == "each" else log_scale if self.shared else torch.zeros_like(log_scale)
        )
        return (told + math.log(self.scale)).clamp(_SHARPEST, _WIDEST)


class BernoulliLikelihood(Likelihood):
    """Black or white for each value. A grey value is white with a probability equal to its brightness, in training by expectation
    and in measuring by a draw (Salakhutdinov and Murray 2008)."""

    kind: Literal["bernoulli"] = "bernoulli"

    def mean(self, out: Tensor) -> Tensor:
        return 2 * torch.sigmoid(out) - 1

    def cost(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        return F.binary_cross_entropy_with_logits(out, _white(x), reduction="none").flatten(1).mean(dim=1)

    def seen(self, x: Tensor, uniform: Tensor) -> Tensor:
        return torch.where(uniform < _white(x), 1.0, -1.0).to(x)

    def log_probability(self, out: Tensor, x: Tensor, log_scale: Tensor) -> Tensor:
        return -F.binary_cross_entropy_with_logits(out, _white(x), reduction="none").flatten(1).sum(dim=1)


def _white(x: Tensor) -> Tensor:
    """Probability of white, of brightness in [−1, 1]."""
    return ((x + 1) / 2).clamp(0, 1)


KINDS = Kinds(GaussianLikelihood, BernoulliLikelihood)
AnyLikelihood = Annotated[Likelihood, KINDS]
