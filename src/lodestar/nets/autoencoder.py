"""Networks of autoencoders: an encoder and a decoder. `KINDS` lists them.

The usual one is made of the U-Net's parts, without its skip connections: down and middle, then middle and up.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from lodestar.config import Channels, Kinds
from lodestar.nets.base import Network, NetworkConfig
from lodestar.nets.layers import Conv2d, GroupNorm, lower
from lodestar.nets.unet import BackboneConfig, Builder, run


class CompressorConfig(NetworkConfig):
    """A network of an autoencoder."""

    latent: Channels = 4
    """Channels of the latent maps."""

    @abc.abstractmethod
    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        """Channels, height and width of the latents of pictures of a size."""

    @abc.abstractmethod
    def build(self, moments: int = 1, outputs: int = 1) -> Compressor:
        """The network, its weights random. moments, outputs: number of values for each latent and for each pixel."""


class Compressor(Network):
    """An encoder and a decoder."""

    @abc.abstractmethod
    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Pictures float32 [B, in_channels, H, W] to float32 [B, moments·latent, h, w]. dtype: the torso's (default: x's)."""

    @abc.abstractmethod
    def decode(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Latents float32 [B, latent, h, w] to float32 [B, outputs·in_channels, H, W]."""


class AutoencoderConfig(BackboneConfig, CompressorConfig):
    """An autoencoder of the U-Net's parts."""

    kind: Literal["autoencoder"] = "autoencoder"
    multipliers: tuple[Annotated[float, Field(ge=0, le=64)], ...] = Field(default=(1, 2, 2), min_length=1, max_length=12)
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(), max_length=12)

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return self.latent, size[0] // self.divisor, size[1] // self.divisor

    def build(self, moments: int = 1, outputs: int = 1) -> Autoencoder:
        return Autoencoder(self, moments, outputs)


class Autoencoder(Compressor):
    """See the module's docstring."""

    def __init__(self, config: AutoencoderConfig, moments: int = 1, outputs: int = 1) -> None:
        super().__init__()
        self.config = config
        builder, widths = Builder(config, told=False), config.widths
        self.stem = Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down, handed = builder.down(widths[0])
        self.middle = builder.middle()
        self.norm = GroupNorm(widths[-1], config.norm_groups, config.norm_eps)
        self.head = Conv2d(widths[-1], moments * config.latent, 1)
        self.root = Conv2d(config.latent, widths[-1], 1)
        self.upper = builder.middle()
        self.up = builder.up([0] * len(handed), None)
        self.out_norm = GroupNorm(widths[0], config.norm_groups, config.norm_eps)
        self.out = Conv2d(widths[0], outputs * config.in_channels, 3, padding=1)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.down, self.middle, self.upper, self.up)

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        h = self._through((*self.down, *self.middle), self.stem(x).to(dtype or x.dtype))
        moments: Tensor = self.head(self.norm(h, silu=True, wide=True))
        return moments

    def decode(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        h = self._through((*self.upper, *self.up), self.root(z).to(dtype or z.dtype))
        out: Tensor = self.out(self.out_norm(h, silu=True, wide=True))
        return out

    def _through(self, stages: Sequence[nn.Module], h: Tensor) -> Tensor:
        for stage in stages:
            h = run(stage, h, None, checkpointing=self.config.checkpointing)
        return h

    def lower(self, dtype: torch.dtype) -> None:
        for part in self.hidden:
            lower(part, dtype)


KINDS = Kinds(AutoencoderConfig, default=AutoencoderConfig)
AnyCompressor = Annotated[CompressorConfig, KINDS]
