"""Adversarial losses: a discriminator's, a generator's, and penalties on the discriminator's gradient.

Goodfellow et al. 2014 (non-saturating), Lim and Ye 2017 (hinge), Arjovsky et al. 2017 and Gulrajani et al. 2017 (Wasserstein with
a gradient penalty), Mescheder et al. 2018 (R1).
"""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Annotated, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from lodestar.config import Config, Kinds

Logits = Callable[[Tensor], Tensor]
"""A discriminator: pictures [B, ...] to logits [B], positive where they look real."""


class Adversarial(Config, abc.ABC):
    """A pair of losses of logits [B], per sample."""

    kind: str
    penalizes: ClassVar[bool] = False
    """True if the loss needs a gradient penalty between real and made samples."""

    @abc.abstractmethod
    def real(self, logits: Tensor) -> Tensor:
        """The discriminator's loss on real samples."""

    @abc.abstractmethod
    def fake(self, logits: Tensor) -> Tensor:
        """The discriminator's loss on made samples."""

    def fooling(self, logits: Tensor) -> Tensor:
        """The generator's loss on made samples."""
        return -logits


class NonSaturating(Adversarial):
    """The non-saturating loss. At the optimum, with logits of 0, the discriminator's is 2·log 2."""

    kind: Literal["non_saturating"] = "non_saturating"

    def real(self, logits: Tensor) -> Tensor:
        return F.softplus(-logits)

    def fake(self, logits: Tensor) -> Tensor:
        return F.softplus(logits)

    def fooling(self, logits: Tensor) -> Tensor:
        return F.softplus(-logits)


class Hinge(Adversarial):
    """The hinge loss."""

    kind: Literal["hinge"] = "hinge"

    def real(self, logits: Tensor) -> Tensor:
        return F.relu(1 - logits)

    def fake(self, logits: Tensor) -> Tensor:
        return F.relu(1 + logits)


class Wasserstein(Adversarial):
    """The Wasserstein loss, whose discriminator is kept 1-Lipschitz by a penalty."""

    kind: Literal["wasserstein"] = "wasserstein"
    penalizes: ClassVar[bool] = True
    penalty: float = Field(default=10.0, ge=0, le=1e6)
    """Weight of the gradient penalty."""

    def real(self, logits: Tensor) -> Tensor:
        return -logits

    def fake(self, logits: Tensor) -> Tensor:
        return logits


KINDS = Kinds(NonSaturating, Hinge, Wasserstein)
AnyAdversarial = Annotated[Adversarial, KINDS]


def squared_slope(logits: Logits, x: Tensor) -> Tensor:
    """Squared norm of the gradient of logits by x, [B], itself differentiable: R1 is half of its mean on real samples."""
    x = x.detach().requires_grad_()
    (slope,) = torch.autograd.grad(logits(x).sum(), x, create_graph=True)
    return slope.flatten(1).square().sum(dim=1)


def gradient_penalty(logits: Logits, real: Tensor, fake: Tensor, share: Tensor) -> Tensor:
    """(‖∇D‖ − 1)² [B] at points between real and made samples [B, ...]; share [B] in [0, 1]: 1 is the real one."""
    share = share.view(-1, *(1,) * (real.ndim - 1))
    # The root has no finite slope at 0.
    norm = (squared_slope(logits, share * real + (1 - share) * fake) + 1e-12).sqrt()
    return (norm - 1).square()
