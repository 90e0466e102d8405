"""A diffusion model of pictures, as configured and saved: denoiser, schedule, size and classes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import AliasChoices, Field, model_validator
from torch import Tensor

from lodestar.codecs import AnyCodec, Embeddings, Pixels
from lodestar.config import CLASSES, Config, Problem, Side
from lodestar.core.estimate import Estimate
from lodestar.core.level import Level, stacked
from lodestar.core.plan import PlanText
from lodestar.core.prediction import Previous
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import Clamp, Limit, Threshold
from lodestar.models.save import Model
from lodestar.samplers import AnySampler, DPMpp


class DiffusionConfig(Config):
    """A diffusion model."""

    kind: Literal["diffusion"] = "diffusion"
    denoiser: DenoiserConfig = DenoiserConfig()
    schedule: AnySchedule = Linear()
    codec: AnyCodec = Pixels()
    """Codec of the pictures."""
    size: tuple[Side, Side] = (32, 32)
    """Height and width in training, equal to the pictures' if they are pixels."""
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of the classes, perhaps with synonyms (`lodestar.models.labels`)."""
    droppable: bool = False
    """Trained with dropped classes too, so also an unconditional model."""
    sampler: AnySampler = DPMpp()
    """Default sampler."""
    steps: PlanText = Field(default="trailing:20", validation_alias=AliasChoices("steps", "plan"))
    """Default sampling plan, in text."""
    limit: Annotated[Clamp | Threshold, Field(discriminator="kind")] | None = Clamp(folded=True)
    """Default limit of x̂₀ to the range of pictures; None is no limit."""

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        classes, prediction = self.denoiser.classes, self.denoiser.prediction.kind
        self.denoiser.network.check_size(self.size)
        if isinstance(self.codec, Embeddings) and self.codec.embed != self.denoiser.channels:
            raise Problem(f"codec.embed is {self.codec.embed} for {self.denoiser.channels} channels: they are the same")
        if self.names is not None and len(self.names) != classes:
            raise Problem(f"{len(self.names)} names are given for {classes} classes")
        if self.schedule.table[self.schedule.timesteps].alpha == 0 and prediction in ("epsilon", "score", "edm", "consistency"):
            raise Problem(
                f"prediction {prediction!r} says nothing of the picture at pure noise, where this schedule ends: try 'v' or 'x0'"
            )
        if isinstance(self.denoiser.prediction, Previous) and self.denoiser.prediction.schedule != self.schedule:
            raise Problem("prediction 'previous' is a mean of this model's chain: its schedule and the model's must be the same")
        return self

    def build(self) -> DiffusionModel:
        return DiffusionModel(self)


class DiffusionModel(Model):
    """The weights of a diffusion model."""

    def __init__(self, config: DiffusionConfig) -> None:
        super().__init__()
        self.config = config
        self.denoiser = config.denoiser.build()
        self.codec = config.codec.build()

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return next(self.parameters()).device

    @property
    def space(self) -> tuple[int, int, int]:
        """Shape of the encoded pictures: channels, height, width."""
        return (self.config.denoiser.channels, *self.config.size)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of the pictures."""
        channels, height, width = self.config.codec.data_shape(self.space)
        return channels, height, width

    @property
    def limit(self) -> Limit | None:
        """Default limit of x̂₀ to the range of the data; None if unbounded."""
        return None if self.config.codec.limit is None else self.config.limit

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.codec.eval()  # its weights are those of a model that has been trained
        return self

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the network's torso in `dtype`, for inference; see `Denoiser.lower`."""
        self.denoiser.lower(dtype)
        return self

    def forward(self, x: Tensor, time: Tensor | float, cond: Mapping[str, Tensor] | None = None) -> Estimate:
        """The estimate of the clean pictures, at noisy ones x float32 [B, C, H, W].

        time: network time, one for all or [B]; for a chain, a step's index from 0. cond: conditions by name, as ``{"label": int64
        [B]}``. A latent is drawn, for models with one. Returns an `Estimate`: its x0, eps, score and v are [B, C, H, W].
        """
        several = isinstance(time, Tensor) and time.ndim > 0
        level = _levels(self.config, time) if several else self.config.schedule.at(float(time))  # type: ignore[arg-type]
        signals = self.denoiser.encode(cond or {}, count=len(x))
        if self.denoiser.latent is not None:
            signals = signals + self.denoiser.latent(torch.randn(len(x), self.config.denoiser.latent or 1, device=x.device))
        estimate: Estimate = self.denoiser(x, level, signals)
        return estimate


def _levels(config: DiffusionConfig, time: Tensor) -> Level:
    """The levels at network times [B] of one batch."""
    return stacked([config.schedule.at(each) for each in time.double().tolist()]).to(time.device)
