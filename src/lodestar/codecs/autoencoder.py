"""Autoencoders: plain and denoising ones, and the VAE (Kingma and Welling 2014), which are models and codecs at once."""

from __future__ import annotations

import abc
from typing import Literal, NamedTuple, Self

import torch
from pydantic import model_validator
from torch import Tensor, nn

from lodestar.codecs import pixels
from lodestar.codecs.base import Codec, Coder
from lodestar.codecs.likelihood import AnyLikelihood, GaussianLikelihood
from lodestar.config import Problem, Side
from lodestar.core.gaussian import kl
from lodestar.nets.autoencoder import AnyCompressor, AutoencoderConfig
from lodestar.nets.base import NetworkConfig
from lodestar.nets.int8 import between

_NARROW, _WIDE = -20.0, 10.0
"""Least and largest logarithm of a posterior's variance."""
FIRST = -4.0
"""Logarithm of its variance where the network tells 0, as at first: so a decoder hears something from its first steps on."""
_KEPT = 0.99
"""Share of the latents' moments that is kept in a step."""


class LatentCodec(Codec):
    """A codec with weights, which maps pictures of one size to latents."""

    size: tuple[Side, Side] = (32, 32)
    """Height and width of the pictures."""
    network: NetworkConfig

    @model_validator(mode="after")
    def _fits(self) -> Self:
        self.network.check_size(self.size)
        return self

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return self.network.in_channels

    @property
    @abc.abstractmethod
    def space(self) -> tuple[int, int, int]:
        """Shape of the latents: channels, height, width."""

    def data_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        return (self.channels, *self.size)

    def check_shape(self, shape: tuple[int, ...]) -> None:
        """Raise Problem unless the codec is of data of this shape: channels, height, width."""
        if tuple(shape) != (self.channels, *self.size):
            raise Problem(
                f"the codec is of pictures of {self.channels} channels and size {self.size}, "
                f"the data's are of {shape[0]} and {tuple(shape[1:])}: set data.channels and data.transforms.size"
            )

    def code_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        self.check_shape(shape)
        return self.space

    @abc.abstractmethod
    def build(self) -> LatentCoder:
        """The coder, its weights random."""


class LatentCoder(Coder):
    """An autoencoder's weights. Latents of pictures have mean 0 and deviation 1 over the training pictures."""

    config: LatentCodec
    mean: Tensor
    """Mean of the latents, by channel and place."""
    std: Tensor
    """Standard deviation of the latents, by channel and place."""
    steps: Tensor
    """Number of batches that the moments are of."""

    def __init__(self, space: tuple[int, int, int]) -> None:
        super().__init__()
        self.dtype = torch.float32
        """Precision of the network's torso; in- and outputs are float32."""
        self.register_buffer("mean", torch.zeros(space))
        self.register_buffer("std", torch.ones(space))
        self.register_buffer("steps", torch.tensor(0.0))

    @abc.abstractmethod
    def latents(self, x: Tensor) -> Tensor:
        """Latents [B, …] of pictures float32 [B, C, H, W] in [−1, 1], in their own scale."""

    def reconstruct(self, x: Tensor, level: str | None = None) -> Tensor:
        """Pictures float32 [B, C, H, W] encoded and decoded. level: of several levels of codes, only those from this one up.

        Raises Problem for a level that there is not.
        """
        if level is not None:
            raise Problem(f"level {level!r}: this model has no levels of codes")
        return self.pictures(self.latents(x))

    @abc.abstractmethod
    def pictures(self, z: Tensor) -> Tensor:
        """Expected pictures float32 [B, C, H, W] in [−1, 1] of latents in their own scale."""

    def draw(self, noise: Tensor) -> Tensor:
        """Latents in their own scale, of standard normal noise: from the prior; without one, from a Gaussian with the latents'
        moments (Ghosh et al. 2020)."""
        return self.mean + self.std * noise

    def check_latents(self, drawn: bool) -> None:
        """Raise Problem where no pictures can be made of latents; drawn: of latents that are drawn."""
        return

    def encode(self, data: Tensor) -> Tensor:
        return (self.latents(pixels.encode(data)) - self.mean) / self.std

    def decode(self, x: Tensor) -> Tensor:
        return pixels.decode(self.pictures(self.mean + self.std * x))

    @torch.no_grad()
    def follow(self, z: Tensor) -> None:
        """Learn the moments of the latents [B, …] of a batch of training."""
        # The mean over all steps so far, until that is longer than the moving average.
        keep = torch.minimum(self.steps / (self.steps + 1), torch.full_like(self.steps, _KEPT))
        second = keep * (self.std.square() + self.mean.square()) + (1 - keep) * z.square().mean(dim=0)
        self.mean.copy_(keep * self.mean + (1 - keep) * z.mean(dim=0))
        self.std.copy_((second - self.mean.square()).clamp(min=torch.finfo(z.dtype).eps).sqrt())
        self.steps += 1


class AutoencoderCodec(LatentCodec):
    """An autoencoder. With a Gaussian posterior it is a VAE."""

    kind: Literal["autoencoder"] = "autoencoder"
    network: AnyCompressor = AutoencoderConfig()
    posterior: Literal["point", "gaussian"] = "gaussian"
    """A picture's latents: a point, or a Gaussian, whose prior is the standard normal distribution (VAE)."""
    likelihood: AnyLikelihood = GaussianLikelihood()
    """Distribution of pictures given latents."""

    @property
    def space(self) -> tuple[int, int, int]:
        return self.network.latent_shape(self.size)

    def build(self) -> AutoencoderCoder:
        return AutoencoderCoder(self)


class Posterior(NamedTuple):
    """A distribution of latents, given pictures."""

    mean: Tensor
    logvar: Tensor | None
    """Logarithm of the variance; None of a point."""

    def draw(self, noise: Tensor) -> Tensor:
        """Latents by standard normal noise."""
        return self.mean if self.logvar is None else self.mean + torch.exp(0.5 * self.logvar) * noise

    def cost(self) -> Tensor:
        """KL divergence from the prior, in nats for each latent, shaped as the mean."""
        if self.logvar is None:
            return torch.zeros_like(self.mean)
        return kl(self.mean, self.logvar, torch.zeros_like(self.mean), 0.0)


class AutoencoderCoder(LatentCoder):
    """The weights of an autoencoder."""

    config: AutoencoderCodec

    def __init__(self, config: AutoencoderCodec) -> None:
        super().__init__(config.space)
        self.config = config
        self.network = config.network.build(2 if config.posterior == "gaussian" else 1, config.likelihood.outputs)
        self.log_scale = nn.Parameter(torch.zeros(()), requires_grad=config.likelihood.shared)

    def posterior(self, x: Tensor) -> Posterior:
        """The distribution of the latents of pictures float32 [B, C, H, W] in [−1, 1]."""
        told = self.network.encode(x, self.dtype)
        if self.config.posterior == "point":
            return Posterior(told, None)
        mean, logvar = told.chunk(2, dim=1)
        return Posterior(mean, (logvar + FIRST).clamp(_NARROW, _WIDE))

    def output(self, z: Tensor) -> Tensor:
        """The decoder's output for latents, as the likelihood takes it."""
        return self.network.decode(z, self.dtype)

    def latents(self, x: Tensor) -> Tensor:
        return self.posterior(x).mean

    def pictures(self, z: Tensor) -> Tensor:
        return self.config.likelihood.mean(self.output(z))

    def draw(self, noise: Tensor) -> Tensor:
        return noise if self.config.posterior == "gaussian" else super().draw(noise)

    @torch.no_grad()
    def evidence(self, x: Tensor, noise: Tensor, seen: Tensor) -> tuple[Tensor, Tensor]:
        """log p(seen | z) and log p(z) − log q(z | x), in nats [B], at a draw of z by standard normal noise.

        seen: the pictures x as the likelihood takes them (`Likelihood.seen`).

        The mean of their sum over draws is the ELBO, and the logarithm of the mean of its exponential the importance-weighted
        bound (Burda et al. 2016).
        """
        posterior = self.posterior(x)
        assert posterior.logvar is not None, "only a distribution of latents bounds a likelihood"
        z = posterior.draw(noise)
        likely = self.config.likelihood.log_probability(self.output(z), seen, self.log_scale)
        # Of both Gaussians the constant is the same: log N(z; 0, 1) − log N(z; mean, variance).
        ratio = 0.5 * (noise.square() + posterior.logvar - z.square())
        return likely, ratio.flatten(1).sum(dim=1)

    def lower(self, dtype: torch.dtype) -> Self:
        """Keep and compute the network's torso in `dtype`, for inference; int8 is the format of what is between convolutions."""
        self.dtype = between() if dtype == torch.int8 else dtype
        self.network.lower(self.dtype)
        return self
