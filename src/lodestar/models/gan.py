"""The generator of a GAN, as configured and saved."""

from __future__ import annotations

from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.config import CLASSES, Config, Problem
from lodestar.models.save import Model
from lodestar.nets import AnyGenerator
from lodestar.nets.gan import DcganGeneratorConfig
from lodestar.nets.int8 import between


class GanConfig(Config):
    """A generator of a GAN."""

    kind: Literal["gan"] = "gan"
    network: AnyGenerator = DcganGeneratorConfig()
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of the classes."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.network.check_size(self.network.size)
        if self.names is not None and len(self.names) != self.network.classes:
            raise Problem(f"{len(self.names)} names are given for {self.network.classes or 'no'} classes")
        return self

    def build(self) -> GanModel:
        return GanModel(self)


class GanModel(Model):
    """The weights of a GAN's generator."""

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""

    def forward(self, z: Tensor, label: Tensor | None = None, deviation: float = 1.0) -> Tensor:
        """Pictures float32 [B, C, H, W] in [−1, 1] of latents z [B, latent] and classes int64 [B].

        deviation: that of the latents, in the unit of training's.
        """
        made: Tensor = self.network(z, label, self.dtype, deviation)
        return made

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference; int8 is the format between convolutions in 8 bits."""
        self.dtype = between() if dtype == torch.int8 else dtype
        self.network.lower(self.dtype)
        return self


def truncated(noise: Tensor, bound: float) -> Tensor:
    """Standard normal numbers as those of a normal distribution within [−bound, bound], in the same order.

    Probabilities are mapped, so that a seed's picture depends smoothly on the bound.
    """
    low = torch.special.ndtr(torch.tensor(-bound, dtype=torch.float64))
    share = low + (1 - 2 * low) * torch.special.ndtr(noise.double())
    within: Tensor = torch.special.ndtri(share).clamp(-bound, bound).to(noise)
    return within
