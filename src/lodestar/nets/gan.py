"""Networks of GANs: generators, from a latent vector to a picture, and discriminators. `DISCRIMINATORS` lists the latter.

Each is there as a DCGAN (Radford et al. 2016), and residual, of the U-Net's blocks, as BigGAN-deep (Brock et al. 2019): norms
conditional on latent and class, and a projection discriminator (Miyato and Koyama 2018). Norms are over groups of channels, never
over a batch, so that no picture depends on its neighbours.
"""

from __future__ import annotations

import abc
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import spectral_norm

from lodestar.config import CLASSES, Channels, Kinds, Problem, Side
from lodestar.nets import fused
from lodestar.nets.base import Network, NetworkConfig
from lodestar.nets.layers import Conv2d, ConvTranspose2d, GroupNorm, Linear, lower, normal
from lodestar.nets.unet import BackboneConfig, Builder, TimeEmbedding, run

Classes = Annotated[int, Field(ge=1, le=CLASSES)]
_Multipliers = Annotated[tuple[Annotated[float, Field(ge=0, le=64)], ...], Field(min_length=1, max_length=12)]
SLOPE = 0.2
"""Slope of the discriminator's leaky ReLU at negative values."""


class _Dcgan(NetworkConfig, abc.ABC):
    """Settings shared by both networks of a DCGAN."""

    width: Channels = 64
    """Channels at multiplier 1."""
    multipliers: _Multipliers = (1, 2, 4)
    """Width of each resolution, from half of the pictures' on."""
    norm_groups: Channels = 16

    @property
    def widths(self) -> tuple[int, ...]:
        """Channels of each resolution, from the finest."""
        return tuple(max(int(multiplier * self.width), 1) for multiplier in self.multipliers)

    @property
    def divisor(self) -> int:
        return 1 << len(self.multipliers)

    @property
    def summary(self) -> str:
        return f"{self.kind}: channels {', '.join(map(str, self.widths))}"


class GeneratorConfig(NetworkConfig, abc.ABC):
    """A generator of pictures of `in_channels` channels."""

    latent: Channels = 64
    """Numbers of the latent vector."""
    classes: Classes | None = None
    size: tuple[Side, Side] = (32, 32)
    """Height and width of the pictures."""
    bound: float | None = Field(default=None, gt=0, le=1_000)
    """Bound of the latents' numbers where none is asked for; None for none."""

    @property
    def coarsest(self) -> tuple[int, int]:
        """Height and width of the coarsest maps."""
        self.check_size(self.size)
        return self.size[0] // self.divisor, self.size[1] // self.divisor

    @abc.abstractmethod
    def build(self) -> GeneratorNetwork:
        """The network, its weights random."""


class GeneratorNetwork(Network):
    """A generator network."""

    @abc.abstractmethod
    def forward(self, z: Tensor, label: Tensor | None = None, dtype: torch.dtype | None = None, deviation: float = 1.0) -> Tensor:
        """Pictures float32 [B, C, H, W] in [−1, 1] of latents z float32 [B, latent], and of classes int64 [B] if there are any.

        dtype: the precision of the torso (default: z's). deviation: that of the latents, for networks with statistics by it.
        """


class DcganGeneratorConfig(_Dcgan, GeneratorConfig):
    """A DCGAN's generator, with class-conditional norms where there are classes."""

    kind: Literal["dcgan"] = "dcgan"

    def build(self) -> DcganGenerator:
        return DcganGenerator(self)


class DcganGenerator(GeneratorNetwork):
    """See `DcganGeneratorConfig`."""

    def __init__(self, config: DcganGeneratorConfig) -> None:
        super().__init__()
        self.config, widths = config, config.widths[::-1]
        self.root = Linear(config.latent, widths[0] * config.coarsest[0] * config.coarsest[1])
        self.norms = nn.ModuleList([GroupNorm(width, config.norm_groups) for width in widths])
        tables = [] if config.classes is None else [table(config.classes, 2 * width) for width in widths]
        self.tables = nn.ModuleList(tables)
        outputs = (*widths[1:], config.in_channels)
        self.ups = nn.ModuleList([ConvTranspose2d(*pair, 4, 2, 1) for pair in zip(widths, outputs, strict=True)])

    def forward(self, z: Tensor, label: Tensor | None = None, dtype: torch.dtype | None = None, deviation: float = 1.0) -> Tensor:
        h = maps(self.root(z), self.config.coarsest).to(dtype or z.dtype)
        for number, (norm, up) in enumerate(zip(self.norms, self.ups, strict=True)):
            # The last convolution is in float32: its rounding would be seen in the picture.
            h = h.to(z.dtype) if number + 1 == len(self.ups) else h
            scale, shift = None, None
            if self.tables:
                assert label is not None, "this generator is told classes"
                scale, shift = self.tables[number](label)[:, :, None, None].to(h.dtype).chunk(2, dim=1)
            h = up(norm(h, scale, shift, silu=True))
        return h.tanh()

    def lower(self, dtype: torch.dtype) -> None:
        lower(self.ups[:-1], dtype)


class ResidualGeneratorConfig(BackboneConfig, GeneratorConfig):
    """A generator of residual blocks, whose norms are told latent and class."""

    kind: Literal["residual"] = "residual"
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(), max_length=12)
    middle_attention: bool = False

    def build(self) -> ResidualGenerator:
        return ResidualGenerator(self)


class ResidualGenerator(GeneratorNetwork):
    """See `ResidualGeneratorConfig`."""

    def __init__(self, config: ResidualGeneratorConfig) -> None:
        super().__init__()
        self.config, widths = config, config.widths
        builder, height, width = Builder(config), *config.coarsest
        self.root = Linear(config.latent, widths[-1] * height * width)
        self.told = nn.Sequential(Linear(config.latent, config.emb_width), nn.SiLU(), Linear(config.emb_width, config.emb_width))
        self.table = None if config.classes is None else table(config.classes, config.emb_width)
        self.middle = builder.middle()
        self.up = builder.up([0] * (sum(config.depths) + len(widths)), None)
        self.norm = GroupNorm(widths[0], config.norm_groups, config.norm_eps)
        self.head = Conv2d(widths[0], config.in_channels, 3, padding=1)

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.middle, self.up

    def forward(self, z: Tensor, label: Tensor | None = None, dtype: torch.dtype | None = None, deviation: float = 1.0) -> Tensor:
        emb, h = self.told(z), maps(self.root(z), self.config.coarsest).to(dtype or z.dtype)
        if self.table is not None:
            assert label is not None, "this generator is told classes"
            emb = emb + self.table(label)
        emb = F.silu(emb).to(h.dtype)
        for stage in (*self.middle, *self.up):
            h = run(stage, h, emb, checkpointing=self.config.checkpointing)
        out: Tensor = self.head(self.norm(h, silu=True, wide=True))
        return out.tanh()

    def lower(self, dtype: torch.dtype) -> None:
        for part in self.hidden:
            lower(part, dtype)


class DiscriminatorConfig(NetworkConfig, abc.ABC):
    """A discriminator: a logit of each picture, by projection on its class where there are any."""

    classes: Classes | None = None
    spectral: bool = False
    """Spectral normalization of all convolutions and affine maps (Miyato et al. 2018)."""
    timed: bool = False
    """Told the network time of noised pictures."""

    @abc.abstractmethod
    def build(self) -> Discriminator:
        """The network, its weights random."""


class Discriminator(Network):
    """A discriminator network. Weights under spectral normalization take a power iteration in `iterate` alone.

    So the pieces of a batch see the same weights.
    """

    def __init__(self, config: DiscriminatorConfig, features: int) -> None:
        super().__init__()
        self.config = config
        self.logit = Linear(features, 1)
        self.table = None if config.classes is None else table(config.classes, features, deviation=features**-0.5)

    @abc.abstractmethod
    def features(self, x: Tensor, time: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
        """Features float32 [B, features] of pictures float32 [B, C, H, W] at network times [B]."""

    def forward(
        self, x: Tensor, time: Tensor | None = None, label: Tensor | None = None, dtype: torch.dtype | None = None,
        twice: bool = False,
    ) -> Tensor:  # fmt: skip
        """Logits float32 [B], positive for pictures that look real. twice: gradients, in float32, will have gradients."""
        with fused.left_out() if twice else nullcontext(), parametrize.cached():
            found = self.features(x, time, None if twice else dtype)
            logits: Tensor = self.logit(found)[:, 0]
            if self.table is None:
                return logits
            assert label is not None, "this discriminator is told classes"
            projected: Tensor = (self.table(label) * found).sum(dim=1)
            return logits + projected

    def normalized(self) -> None:
        """Put spectral normalization on all convolutions and affine maps, if configured. To be called once all are there."""
        for module in self._affine() if self.config.spectral else ():
            module.reset_parameters()  # since maps that begin at zero have no direction
            spectral_norm(module)

    def iterate(self) -> None:
        """Take a power iteration of the spectral norms, if there are any."""
        for module in self._affine() if self.config.spectral else ():
            norm = module.get_submodule("parametrizations.weight.0").train()
            with torch.no_grad():
                _ = module.weight
            norm.eval()

    def train(self, mode: bool = True) -> Discriminator:
        super().train(mode)
        for module in self.modules():
            if isinstance(module, parametrize.ParametrizationList):
                module.eval()
        return self

    def _affine(self) -> list[Conv2d | Linear]:
        return [module for module in self.modules() if isinstance(module, Conv2d | Linear)]

    @property
    @abc.abstractmethod
    def torso(self) -> Sequence[nn.Module]:
        """The parts that compute in low precision."""

    def lower(self, dtype: torch.dtype) -> None:
        for part in () if self.config.spectral else self.torso:
            lower(part, dtype)


class DcganDiscriminatorConfig(_Dcgan, DiscriminatorConfig):
    """A DCGAN's discriminator, without norms."""

    kind: Literal["dcgan"] = "dcgan"

    def build(self) -> DcganDiscriminator:
        if self.timed:
            raise Problem("a discriminator of kind 'dcgan' is told no time: take kind 'residual'")
        return DcganDiscriminator(self)


class DcganDiscriminator(Discriminator):
    """See `DcganDiscriminatorConfig`."""

    def __init__(self, config: DcganDiscriminatorConfig) -> None:
        super().__init__(config, config.widths[-1])
        inputs = (config.in_channels, *config.widths[:-1])
        downs = [Conv2d(*pair, 4, 2, 1) for pair in zip(inputs, config.widths, strict=True)]
        for down in downs:
            nn.init.kaiming_uniform_(down.weight, SLOPE)
        self.downs = nn.ModuleList(downs)
        self.normalized()

    @property
    def torso(self) -> Sequence[nn.Module]:
        return (self.downs,)

    def features(self, x: Tensor, time: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
        h = x.to(dtype=dtype or x.dtype, memory_format=torch.channels_last)
        for down in self.downs:
            h = F.leaky_relu(down(h), SLOPE)
        return h.mean(dim=(2, 3)).to(x.dtype)


class ResidualDiscriminatorConfig(BackboneConfig, DiscriminatorConfig):
    """A discriminator of the U-Net's first half."""

    kind: Literal["residual"] = "residual"
    attention: tuple[Annotated[int, Field(ge=1, le=2**11)], ...] = Field(default=(), max_length=12)
    middle_attention: bool = False

    def build(self) -> ResidualDiscriminator:
        return ResidualDiscriminator(self)


class ResidualDiscriminator(Discriminator):
    """See `ResidualDiscriminatorConfig`."""

    def __init__(self, config: ResidualDiscriminatorConfig) -> None:
        widths = config.widths
        super().__init__(config, widths[-1])
        self.checkpointing = config.checkpointing
        builder = Builder(config, told=config.timed)
        self.time = TimeEmbedding(config.width, config.emb_width, config.closed_frequencies) if config.timed else None
        self.stem = Conv2d(config.in_channels, widths[0], 3, padding=1)
        self.down, _ = builder.down(widths[0])
        self.middle = builder.middle()
        self.norm = GroupNorm(widths[-1], config.norm_groups, config.norm_eps)
        self.normalized()

    @property
    def hidden(self) -> Sequence[nn.Module]:
        return self.down, self.middle

    @property
    def torso(self) -> Sequence[nn.Module]:
        return self.stem, *self.hidden

    def features(self, x: Tensor, time: Tensor | None, dtype: torch.dtype | None = None) -> Tensor:
        emb = None
        if self.time is not None:
            assert time is not None, "this discriminator is told times"
            emb = F.silu(self.time(time)).to(dtype or x.dtype)
        h = self.stem(x.to(dtype=dtype or x.dtype, memory_format=torch.channels_last))
        for stage in (*self.down, *self.middle):
            h = run(stage, h, emb, checkpointing=self.checkpointing)
        out: Tensor = self.norm(h, silu=True, wide=True).mean(dim=(2, 3))
        return out


def maps(rows: Tensor, size: tuple[int, int]) -> Tensor:
    """Rows [B, H·W·C] as maps [B, C, H, W], channels-last."""
    return rows.view(len(rows), *size, -1).permute(0, 3, 1, 2)


def table(classes: int, width: int, deviation: float = 0.1) -> nn.Embedding:
    """A table of vectors of classes [classes, width], random."""
    made: nn.Embedding = nn.Embedding.from_pretrained(normal(classes, width, divisor=1 / deviation), freeze=False)
    return made


DISCRIMINATORS = Kinds(DcganDiscriminatorConfig, ResidualDiscriminatorConfig)
AnyDiscriminator = Annotated[DiscriminatorConfig, DISCRIMINATORS]
