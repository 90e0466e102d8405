"""Networks of autoencoders: an encoder and a decoder. `KINDS` lists them.

The usual one is made of the U-Net's parts, without its skip connections: down and middle, then middle and up. With a codebook
between them it is VQGAN's (Esser et al. 2021).
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
from lodestar.nets.codebook import Codebook, Coded
from lodestar.nets.coded import CodedConfig, CodedNetwork
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


class PartsConfig(BackboneConfig):
    """An encoder and a decoder of the U-Net's parts."""

    multipliers: tuple[Annotated[float, Field(ge=0, le=64)], ...] = Field(default=(1, 2, 2), min_length=1, max_length=12)
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(), max_length=12)
    kernel: Literal[1, 3] = 1
    """Side of the convolutions to the latents and from them."""
    mixed: Channels | None = None
    """Channels between these and another 1×1 convolution on each side of the latents (latent diffusion's); None for no other."""


class AutoencoderConfig(PartsConfig, CompressorConfig):
    """An autoencoder of the U-Net's parts."""

    kind: Literal["autoencoder"] = "autoencoder"

    def latent_shape(self, size: tuple[int, int]) -> tuple[int, int, int]:
        return self.latent, size[0] // self.divisor, size[1] // self.divisor

    def build(self, moments: int = 1, outputs: int = 1) -> Autoencoder:
        return Autoencoder(self, self.latent, moments, outputs)


class Autoencoder(Compressor):
    """See the module's docstring."""

    def __init__(self, config: PartsConfig, latent: int, moments: int = 1, outputs: int = 1) -> None:
        super().__init__()
        self.config = config
        builder, widths = Builder(config, told=False), config.widths
        inner, kernel, padding = config.mixed or latent, config.kernel, config.kernel // 2
        self.stem = Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down, handed = builder.down(widths[0])
        self.middle = builder.middle()
        self.norm = GroupNorm(widths[-1], config.norm_groups, config.norm_eps)
        self.head = Conv2d(widths[-1], moments * inner, kernel, padding=padding)
        self.mix = nn.Identity() if config.mixed is None else Conv2d(moments * inner, moments * latent, 1)
        self.unmix = nn.Identity() if config.mixed is None else Conv2d(latent, inner, 1)
        self.root = Conv2d(inner, widths[-1], kernel, padding=padding)
        self.upper = builder.middle()
        self.up = builder.up([0] * len(handed), None)
        self.out_norm = GroupNorm(widths[0], config.norm_groups, config.norm_eps)
        self.out = Conv2d(widths[0], outputs * config.in_channels, 3, padding=1)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return (self.down, self.middle, self.upper, self.up)

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        h = self._through((*self.down, *self.middle), self.stem(x).to(dtype or x.dtype))
        moments: Tensor = self.mix(self.head(self.norm(h, silu=True, wide=True)))
        return moments

    def decode(self, z: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        h = self._through((*self.upper, *self.up), self.root(self.unmix(z)).to(dtype or z.dtype))
        out: Tensor = self.out(self.out_norm(h, silu=True, wide=True))
        return out

    def _through(self, stages: Sequence[nn.Module], h: Tensor) -> Tensor:
        for stage in stages:
            h = run(stage, h, None, checkpointing=self.config.checkpointing)
        return h

    def lower(self, dtype: torch.dtype) -> None:
        for part in self.hidden:
            lower(part, dtype)


class QuantizedConfig(PartsConfig, CodedConfig):
    """A VQ-VAE of the U-Net's parts, with one level of codes."""

    kind: Literal["quantized"] = "quantized"
    levels: Literal[1] = 1

    @property
    def summary(self) -> str:
        return f"{self.book.codes:,} codes of {self.book.channels} channels; {super().summary}"

    def build(self) -> Quantized:
        return Quantized(self)


class Quantized(CodedNetwork):
    """See `QuantizedConfig`."""

    def __init__(self, config: QuantizedConfig) -> None:
        super().__init__()
        self.config = config
        self.body = Autoencoder(config, config.book.channels)
        self.codebook = config.book.build()

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.body.hidden

    def encode(self, x: Tensor, dtype: torch.dtype | None = None) -> list[tuple[Coded, Tensor]]:
        z = self.body.encode(x, dtype).float()
        return [(self.codebook(z, dtype or x.dtype), z)]

    def decode(self, values: Sequence[Tensor], dtype: torch.dtype | None = None) -> Tensor:
        return self.body.decode(values[0], dtype)

    def book(self, level: int) -> Codebook:
        return self.codebook

    def lower(self, dtype: torch.dtype) -> None:
        self.body.lower(dtype)


KINDS = Kinds(AutoencoderConfig, default=AutoencoderConfig)
AnyCompressor = Annotated[CompressorConfig, KINDS]
