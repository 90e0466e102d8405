"""A discriminator of real pictures against those of a diffusion model, both noised, for guidance (Kim et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.conditions import Ask
from lodestar.config import CLASSES, Config, Problem, Side
from lodestar.core.level import Level
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.guidance import LogP, Sees
from lodestar.models.classifier import check_pictures, network_times
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.labels import check_classes
from lodestar.models.look import look
from lodestar.models.save import Model
from lodestar.nets.gan import ResidualDiscriminatorConfig
from lodestar.nets.int8 import between


class DiscriminatorModelConfig(Config):
    """A discriminator of noised pictures."""

    kind: Literal["discriminator"] = "discriminator"
    network: ResidualDiscriminatorConfig = ResidualDiscriminatorConfig(timed=True)
    schedule: AnySchedule = Linear()
    """The noise schedule of training; the same as the guided diffusion model's."""
    size: tuple[Side, Side] = (32, 32)
    """Height and width of the pictures."""
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of the classes."""
    opponent: Annotated[str, Field(pattern="^([0-9a-f]{64})?$")] = ""
    """SHA-256 of the diffusion model whose pictures are told from real ones; empty if unknown."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        self.network.check_size(self.size)
        if not self.network.timed:
            raise Problem("network.timed is false: this discriminator is told the level of its pictures")
        return self

    @property
    def noised(self) -> bool:
        """True: it looks at noised pictures."""
        return True

    def build(self) -> PictureDiscriminator:
        return PictureDiscriminator(self)


class PictureDiscriminator(Model):
    """log p(x)/q(x) of pictures x, float32 [B, C, H, W] in [−1, 1] before the noise: real ones have density p, made ones q."""

    def __init__(self, config: DiscriminatorModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""

    def __repr__(self) -> str:
        network = self.config.network
        return look(self, (network.in_channels, *self.config.size), network.classes, self.dtype, "of noised pictures")

    @property
    def opponent(self) -> str:
        """SHA-256 of the model with density q; empty if unknown."""
        return self.config.opponent

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """Names of the classes (empty for none), and their number (None for none)."""
        return self.config.names or (), self.config.network.classes

    def log_ratio(self, x: Tensor, level: Level, label: Tensor | None = None) -> Tensor:
        """The log ratio [B], differentiable in x; label: classes int64 [B], for a discriminator that is told them."""
        logits: Tensor = self.network(x, network_times(x, level), label, self.dtype)
        return logits

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless a diffusion model's classes and pictures suit the discriminator."""
        if self.config.network.classes is not None:
            check_classes("discriminator", self.known, (model.names or (), model.denoiser.classes))
        check_pictures("discriminator", self.config, model, sees)

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        """The function log p/q of noised pictures. Raises Problem for asks without a single class, if it is told classes."""
        if sees == "clean":
            raise Problem("this discriminator knows the densities of noised pictures, and x̂₀ has another: leave sees=clean out")
        label = None
        if self.config.network.classes is not None:
            if any(not isinstance(ask.label, int) for ask in asks):
                raise Problem("guidance discriminator: this one is told one class of each picture: give labels that are single")
            label = torch.tensor([ask.label for ask in asks], device=device)
        return lambda x, level: self.log_ratio(x, level, label)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference; int8 is the format between convolutions in 8 bits."""
        self.dtype = between() if dtype == torch.int8 else dtype
        self.network.lower(self.dtype)
        return self
