"""VQ-VAE and VQ-VAE-2: autoencoders whose latents are codes of a codebook."""

from __future__ import annotations

from typing import Annotated, Literal, Self

import torch
from torch import Tensor

from lodestar.codecs.autoencoder import LatentCodec, LatentCoder
from lodestar.config import Kinds, Problem
from lodestar.nets.autoencoder import QuantizedConfig
from lodestar.nets.coded import CodedConfig
from lodestar.nets.dvae import DvaeConfig
from lodestar.nets.int8 import between
from lodestar.nets.pyramid import PyramidConfig

NETWORKS = Kinds(PyramidConfig, QuantizedConfig, DvaeConfig, default=PyramidConfig)
AnyCoded = Annotated[CodedConfig, NETWORKS]


class VQVAECodec(LatentCodec):
    """A VQ-VAE, of one to three levels of codes."""

    kind: Literal["vqvae"] = "vqvae"
    network: AnyCoded = PyramidConfig()

    @property
    def space(self) -> tuple[int, int, int]:
        """Shape of the bottom level's vectors."""
        return (self.network.book.channels, *self.network.shapes(self.size)[0])

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        if self.network.levels > 1:
            raise Problem(f"the codec has {self.network.levels} levels of codes, and diffusion is in the latents of one")
        return super().code_shape(shape)

    def build(self) -> VQVAECoder:
        return VQVAECoder(self)


class VQVAECoder(LatentCoder):
    """The weights of a VQ-VAE. As a codec, its latents are the vectors before the codes, which stand for them in decoding."""

    config: VQVAECodec

    def __init__(self, config: VQVAECodec) -> None:
        super().__init__(config.space)
        self.config = config
        self.network = config.network.build()

    def codes(self, x: Tensor) -> list[Tensor]:
        """Codes int64 [B, h, w] of pictures float32 [B, C, H, W] in [−1, 1], by level from the finest."""
        return [coded.numbers for coded, _ in self.network.encode(x, self.dtype)]

    def of_codes(self, codes: list[Tensor]) -> Tensor:
        """Pictures float32 [B, C, H, W] of codes int64 [B, h, w] by level, from the finest."""
        return self.network.decode(self.network.look_up(codes), self.dtype)

    def latents(self, x: Tensor) -> Tensor:
        return self.network.encode(x, self.dtype)[0][1]

    def pictures(self, z: Tensor) -> Tensor:
        return self.network.decode([self.network.book(0)(z, self.dtype).values], self.dtype)

    def reconstruct(self, x: Tensor, level: str | None = None) -> Tensor:
        first = 0 if level is None else self.config.network.level(level)
        values = [coded.values for coded, _ in self.network.encode(x, self.dtype)]
        # Levels that are left out say the mean of their codes, by usage: a picture of nothing in particular.
        for below in range(first):
            values[below] = self.network.book(below).mean[:, None, None].expand_as(values[below])
        return self.network.decode(values, self.dtype)

    def check_latents(self, drawn: bool) -> None:
        levels = self.config.network.levels
        if drawn:
            raise Problem("a VQ-VAE has codes and no prior of them (lodestar train … --codes makes one): it draws no pictures")
        if levels > 1:
            raise Problem(f"this model has {levels} levels of codes, and latents are of one: it reconstructs pictures alone")

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the network's torso in `dtype`, for inference; int8 is the format of what is between convolutions."""
        self.dtype = between() if dtype == torch.int8 else dtype
        self.network.lower(self.dtype)
        return self
