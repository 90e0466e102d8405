"""A classifier of pictures: of noised pictures, for guidance (ADM, section 4), or of clean ones, for measuring."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, Protocol, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from lodestar.conditions import Ask, sign_table
from lodestar.config import CLASSES, Config, Problem
from lodestar.core.level import CLEAN, Level
from lodestar.core.schedule import AnySchedule, Linear
from lodestar.guidance import LogP, Observed, Sees
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.labels import check_classes
from lodestar.models.look import look
from lodestar.models.save import Model
from lodestar.nets.base import NetworkConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.int8 import between


class ClassifierModelConfig(Config):
    """A classifier of pictures."""

    kind: Literal["classifier"] = "classifier"
    network: ClassifierConfig = ClassifierConfig()
    schedule: AnySchedule = Linear()
    """The noise schedule of training; the same as the guided diffusion model's."""
    noised: bool = True
    """Trained on noised pictures, conditional on their level; otherwise on clean ones alone."""
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of the classes."""

    @model_validator(mode="after")
    def _names_fit(self) -> Self:
        if self.names is not None and len(self.names) != self.network.classes:
            raise Problem(f"{len(self.names)} names are given for {self.network.classes} classes")
        return self

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""
        return self.network.size

    def build(self) -> PictureClassifier:
        return PictureClassifier(self)


class Told(NamedTuple):
    """Outputs of a classifier."""

    features: Tensor
    """Features [B, D]."""
    logits: Tensor
    """Logits [B, classes]."""
    maps: Tensor | None = None
    """Feature maps before pooling [B, channels, H', W']; None if every stage is pooled."""


class PictureClassifier(Model):
    """p(y | x) of pictures x, float32 [B, C, H, W] in [−1, 1] before the noise, at a level: one for all (floats), or [B]."""

    def __init__(self, config: ClassifierModelConfig) -> None:
        super().__init__()
        self.config = config
        self.network = config.network.build()
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""

    def __repr__(self) -> str:
        network = self.config.network
        sees = "of noised pictures" if self.config.noised else "of clean pictures"
        return look(self, (network.in_channels, *network.size), network.classes, self.dtype, sees)

    def logits(self, x: Tensor, level: Level = CLEAN) -> Tensor:
        """Unnormalised log-probabilities of the classes [B, classes]."""
        logits: Tensor = self.network(x, network_times(x, level), self.dtype)
        return logits

    def log_probability(self, x: Tensor, level: Level, signs: Tensor) -> Tensor:
        """Signed sum Σ sign·log p(class | x) [B], differentiable in x; signs [B, classes] are 1 if wanted, −1 if unwanted.

        A classifier of clean pictures supports no other level than `CLEAN`.
        """
        assert self.config.noised or level == CLEAN, "a classifier of clean pictures knows no noise"
        return (self.logits(x, level).log_softmax(dim=-1) * signs).sum(dim=-1)

    @property
    def known(self) -> tuple[tuple[str, ...], int | None]:
        """Names of the classes (empty for none), and their number."""
        return self.config.names or (), self.config.network.classes

    def agree(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless a diffusion model's classes and pictures suit the classifier; see `suit`."""
        if model.denoiser.classes is not None:
            check_classes("classifier", self.known, (model.names or (), model.denoiser.classes))
        self.suit(model, sees)

    def suit(self, model: DiffusionConfig, sees: Sees) -> None:
        """Raise Problem unless a diffusion model's pictures suit the classifier; sees "noisy": also its noised pictures."""
        check_pictures("classifier", self.config, model, sees)

    def logp(self, asks: Sequence[Ask], sees: Sees, device: torch.device) -> LogP:
        """The function log p(labels | x): of noised pictures, or of clean ones whatever the level."""
        table = sign_table([ask.label for ask in asks], self.config.network.classes).to(device)
        return lambda x, level: self.log_probability(x, level if sees == "noisy" else CLEAN, table)

    def features(self, x: Tensor, level: Level = CLEAN) -> Tensor:
        """Features of the last layer [B, D]; maps are averaged over their places, so D is their channels."""
        return self.told(x, level).features

    def told(self, x: Tensor, level: Level = CLEAN) -> Told:
        """`features`, `logits` and maps, from one pass."""
        given = self.network.features(x, network_times(x, level), self.dtype)
        logits = self.network.classify(given)
        return Told(given.mean(dim=(2, 3)), logits, given) if given.ndim == 4 else Told(given, logits)

    def observe(self, x: Tensor, level: Level) -> Observed:
        """Features and the maps of every resolution, differentiable in x."""
        given, maps = self.network.maps(x, network_times(x, level), self.dtype)
        return Observed(given.mean(dim=(2, 3)) if given.ndim == 4 else given, maps)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the torso in `dtype`, for inference. The head, the last norm and the embedding stay in float32.

        A classifier has no convolutions in 8 bits: int8 is the format of what is between them (`lodestar.nets.int8.between`).
        """
        dtype = between() if dtype == torch.int8 else dtype
        self.dtype = dtype
        self.network.lower(dtype)
        return self


def network_times(x: Tensor, level: Level) -> Tensor:
    """Network times [B]: clean pictures have no time in the chain; the first step's is used."""
    if isinstance(level.time, Tensor):
        return torch.where(torch.as_tensor(level.sigma) == 0, 0.0, level.time).to(x)
    return torch.full((len(x),), 0.0 if level.sigma == 0 else level.time, device=x.device)


class Seeing(Protocol):
    """A configuration of a model that looks at pictures."""

    @property
    def network(self) -> NetworkConfig:
        """The network."""

    @property
    def schedule(self) -> AnySchedule:
        """Noise schedule of the pictures."""

    @property
    def noised(self) -> bool:
        """True for a model of noised pictures."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the pictures."""


def check_pictures(what: str, ours: Seeing, model: DiffusionConfig, sees: Sees) -> None:
    """Raise Problem unless a diffusion model's pictures suit a guide; sees "noisy": also its noised pictures. what: the guide."""
    if sees == "noisy" and not ours.noised:
        raise Problem(f"this {what} was trained on clean pictures alone, and noised ones are new to it: try sees=clean")
    if sees == "noisy" and ours.schedule != model.schedule:
        raise Problem(f"this {what} knows another noise schedule ({ours.schedule.kind}) than the model ({model.schedule.kind})")
    channels = model.denoiser.channels
    if (ours.network.in_channels, ours.size) != (channels, model.size):
        raise Problem(
            f"this {what} sees pictures of {ours.network.in_channels} channels and size {ours.size}, "
            f"the model makes {channels} and {model.size}"
        )
