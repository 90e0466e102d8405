"""Averages of the weights along training; samples are drawn from one of them."""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from lodestar.config import Config
from lodestar.world import local


class Profile(Config, abc.ABC):
    """The decay of an average at each step."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """A short name for file names and logs."""

    @abc.abstractmethod
    def keep(self, images_seen: int, batch_size: int) -> float:
        """The average's own weight in [0, 1) in the update after a step that ends at images_seen."""


class HalfLife(Profile):
    """Exponential average with a half-life in images, at most `ramp` of the images seen so far (EDM)."""

    kind: Literal["half_life"] = "half_life"
    images: int = Field(default=500_000, ge=1, le=10**12)
    ramp: float = Field(default=0.05, gt=0, le=1e9)

    @property
    def label(self) -> str:
        return f"half_life{self.images}"

    def keep(self, images_seen: int, batch_size: int) -> float:
        half_life = min(self.images, images_seen * self.ramp)
        return float(0.5 ** (batch_size / max(half_life, 1e-8)))


class Decay(Profile):
    """Plain exponential average with a factor per step (DDPM, ADM: 0.9999)."""

    kind: Literal["decay"] = "decay"
    decay: float = Field(default=0.9999, ge=0, lt=1)

    @property
    def label(self) -> str:
        return f"decay{self.decay}"

    def keep(self, images_seen: int, batch_size: int) -> float:
        return self.decay


class Power(Profile):
    """Power-function average of relative width `width` (Karras et al. 2024, equations 121 to 123), independent of the run's
    length."""

    kind: Literal["power"] = "power"
    width: float = Field(default=0.1, gt=0, lt=0.28)

    @property
    def label(self) -> str:
        return f"power{self.width}"

    def keep(self, images_seen: int, batch_size: int) -> float:
        return float(max(1 - batch_size / images_seen, 0.0) ** (self._gamma() + 1))

    def _gamma(self) -> float:
        """The exponent γ for which the profile t^γ has this relative standard deviation: width² = (γ + 1)/((γ + 2)²·(γ + 3))."""
        low, high = 0.0, 1e6
        for _ in range(200):
            middle = (low + high) / 2
            if (middle + 1) / ((middle + 2) ** 2 * (middle + 3)) > self.width**2:
                low = middle
            else:
                high = middle
        return low


AnyProfile = Annotated[HalfLife | Decay | Power, Field(discriminator="kind")]


class Average:
    """One average of a list of parameters, in float32 beside them."""

    def __init__(self, profile: Profile, parameters: Sequence[Tensor]) -> None:
        self.profile = profile
        self.values = [parameter.detach().clone() for parameter in parameters]

    def share(self, images_seen: int, batch_size: int) -> float:
        """The parameters' weight in the update after the step that ends at images_seen."""
        return 1 - self.profile.keep(images_seen, batch_size)

    @torch.no_grad()
    def toward(self, parameters: Sequence[Tensor], share: float) -> None:
        """Move by a share of the way to the parameters."""
        torch._foreach_lerp_([local(value) for value in self.values], [local(each.detach()) for each in parameters], share)
