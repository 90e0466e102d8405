"""A prior of the codes of a VQ-VAE: of every level, the codes in raster order, given those before and the next coarser level."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from lodestar.codecs import VQVAECodec
from lodestar.conditions import Cond, Encoder, LabelCondition, Signals, TextCondition
from lodestar.config import CLASSES, Config, Problem
from lodestar.models.save import Model
from lodestar.nets import AnyMap, MapConfig, PixelSnailConfig
from lodestar.nets.coded import LEVELS
from lodestar.nets.maps import MapNetwork

AnyTold = Annotated[LabelCondition | TextCondition, Field(discriminator="kind")]


class CodePriorConfig(Config):
    """A prior of codes, with the VQ-VAE that decodes them."""

    kind: Literal["code_prior"] = "code_prior"
    codec: VQVAECodec = VQVAECodec()
    networks: tuple[AnyMap, ...] = Field(default=(PixelSnailConfig(),), min_length=1, max_length=LEVELS)
    """Networks by level, from the finest; a single one is for all levels. Sizes, codes and conditions are set by the model."""
    conditions: tuple[AnyTold, ...] = Field(default=(), max_length=2)
    """Conditions of every level, at most one of each kind."""
    names: tuple[str, ...] | None = Field(default=None, max_length=CLASSES)
    """Names of the classes."""
    droppable: bool = False
    """Trained with dropped conditions too, so also an unconditional model."""

    @model_validator(mode="after")
    def _fit(self) -> Self:
        levels, kinds = self.codec.network.levels, [each.kind for each in self.conditions]
        if len(set(kinds)) < len(kinds):
            raise Problem(f"condition {kinds[0]!r} is given twice")
        if self.names is not None and len(self.names) != self.classes:
            raise Problem(f"{len(self.names)} names are given for {self.classes} classes")
        if len(self.networks) not in (1, levels):
            raise Problem(f"networks are {len(self.networks)}, and the VQ-VAE has {levels} levels of codes: give one for each")
        networks = self.networks * (levels // len(self.networks))
        states, book = None if self.text is None else self.text.told, self.codec.network.book
        fitted = (
            network.fitted(size, book.codes, bool(kinds), level + 1 < levels, states)
            for level, (network, size) in enumerate(zip(networks, self.codec.network.shapes(self.codec.size), strict=True))
        )
        object.__setattr__(self, "networks", tuple(fitted))  # as in `DenoiserConfig`, frozen once this returns
        return self

    @property
    def classes(self) -> int | None:
        """Number of classes, or None for a prior without."""
        return next((each.classes for each in self.conditions if isinstance(each, LabelCondition)), None)

    @property
    def text(self) -> TextCondition | None:
        """The condition on texts, or None."""
        return next((each for each in self.conditions if isinstance(each, TextCondition)), None)

    def build(self) -> CodePriorModel:
        return CodePriorModel(self)


class LevelPrior(nn.Module):
    """The network of one level, with encoders of the conditions."""

    network: MapNetwork

    def __init__(self, network: MapConfig, conditions: Sequence[AnyTold]) -> None:
        super().__init__()
        self.network = network.build()
        self.encoders = nn.ModuleDict({each.kind: each.build(network.emb_width) for each in conditions})

    def encode(self, cond: Cond, keep: Mapping[str, Tensor] | None = None, count: int = 0) -> Signals:
        """Encoded conditions; one that is missing is null, for `count` maps. keep: as for `Denoiser.encode`."""
        signals = Signals()
        for name, encoder in self.encoders.items():
            assert isinstance(encoder, Encoder)
            signals = signals + (encoder(cond[name], (keep or {}).get(name)) if name in cond else encoder.null(count))
        return signals

    def told(self, signals: Signals, coarser: Tensor | None, dtype: torch.dtype = torch.float32) -> Tensor | None:
        """Features for the network, of encoded conditions and coarser codes int64 [B, h, w]; None for a network without."""
        features = None if signals.emb is None else signals.emb[..., None, None]
        if coarser is None:
            return features
        told = self.network.tell(coarser, dtype).float()
        return told if features is None else told + features


class CodePriorModel(Model):
    """The weights of a prior of codes, and those of its VQ-VAE."""

    def __init__(self, config: CodePriorConfig) -> None:
        super().__init__()
        self.config = config
        self.codec = config.codec.build()
        self.levels = nn.ModuleList(LevelPrior(network, config.conditions) for network in config.networks)
        self.dtype = torch.float32
        """Precision of the codec, and of the networks in training."""

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.codec.mean.device

    def level(self, number: int) -> LevelPrior:
        """The prior of a level by its number, from the finest."""
        level = self.levels[number]
        assert isinstance(level, LevelPrior)
        return level

    def logits(self, number: int, codes: Sequence[Tensor], cond: Cond, keep: Mapping[str, Tensor] | None = None) -> Tensor:
        """Logits float32 [B, K, h, w] of a level's codes, given codes int64 [B, h, w] by level from the finest; see `encode`."""
        level = self.level(number)
        signals = level.encode(cond, keep, len(codes[number]))
        told = level.told(signals, codes[number + 1] if number + 1 < len(codes) else None, self.dtype)
        logits: Tensor = level.network(codes[number], told, signals.tokens, self.dtype)
        return logits

    def train(self, mode: bool = True) -> Self:
        super().train(mode)
        self.codec.eval()  # its weights are those of a model that has been trained
        return self

    def lower(self, dtype: torch.dtype) -> Self:
        """Decode in `dtype`. Codes are drawn in float32: a rounding error may change one, and all codes after it."""
        self.codec.lower(dtype)
        return self
