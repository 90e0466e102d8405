"""Training autoencoders: plain ones, denoising ones and VAEs."""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Literal, Self

import torch
from pydantic import Field
from torch import Tensor

from lodestar.codecs import pixels
from lodestar.codecs.autoencoder import AutoencoderCodec, LatentCodec
from lodestar.config import Config
from lodestar.data.batch import Batch, DataFacts
from lodestar.generators.autoencoder import Autoencoder
from lodestar.nets.precision import place
from lodestar.objectives import Losses
from lodestar.tasks.base import PREVIEWS, Export, Learner, Phase, Task, check_learns, check_size
from lodestar.tasks.rng import Rng

_Share = Annotated[float, Field(ge=0, le=1)]


class Corruption(Config):
    """Damage to the pictures that the encoder sees, for denoising autoencoders (Vincent et al. 2008)."""

    noise: float = Field(default=0.0, ge=0, le=100)
    """Standard deviation of Gaussian noise, of pictures in [−1, 1]."""
    masking: _Share = 0.0
    """Share of the pixels that are set to grey, 0."""
    salt: _Share = 0.0
    """Share of the pixels that are set to white or black, as often (salt and pepper)."""

    def __call__(self, x: Tensor, rng: Rng) -> Tensor:
        """Damaged pictures [B, C, H, W]."""
        if self.noise:
            x = x + self.noise * rng.normal(*x.shape[1:])
        if self.masking or self.salt:
            draw = rng.draw(lambda count, make: torch.rand((count, 1, *x.shape[2:]), generator=make, device=make.device))
            # One number decides for a pixel: [0, masking) masks it, and of the rest the last `salt` is split in two.
            pepper = draw >= 1 - self.salt / 2
            x = torch.where(pepper, -1.0, torch.where(draw >= 1 - self.salt, 1.0, x))
            x = x.masked_fill(draw < self.masking, 0.0)
        return x


class TrainCodec(Task, abc.ABC):
    """A codec with weights, trained on pictures of any size and channels that its network takes."""

    model: LatentCodec

    @property
    def conditions(self) -> bool:
        return False

    def resolve(self, facts: DataFacts) -> Self:
        check_learns(self.model.network)
        check_size(facts.size, self.model.network)
        network = self.model.network.replace(in_channels=facts.channels)
        return self.replace(model=self.model.replace(network=network, size=facts.size))


class Autoencode(TrainCodec):
    """An autoencoder of pictures."""

    kind: Literal["autoencode"] = "autoencode"
    model: AutoencoderCodec = AutoencoderCodec()
    corruption: Corruption = Corruption()
    beta: float = Field(default=1.0, ge=0, le=1e6)
    """Weight of the divergence from the prior (β-VAE, Higgins et al. 2017)."""
    warmup_images: int = Field(default=0, ge=0, le=10**12)
    """Number of images over which β grows from 0 to its value."""
    free_bits: float = Field(default=0.0, ge=0, le=1e6)
    """Bits of each latent channel of a picture that cost nothing (Kingma et al. 2016)."""

    def build(self, device: torch.device, dtype: torch.dtype) -> AutoencodeLearner:
        return AutoencodeLearner(self, device, dtype)


class AutoencodeLearner(Learner):
    """The learner of `Autoencode`."""

    def __init__(self, task: Autoencode, device: torch.device, dtype: torch.dtype) -> None:
        self.task, self.device = task, device
        self.module = self.model = place(Autoencoder(task.model), device)
        self.model.dtype = dtype
        self._seen = torch.zeros((), dtype=torch.int64)

    def phases(self) -> list[Phase]:
        return [Phase("autoencode", [each for each in self.module.parameters() if each.requires_grad], self.loss, self.remember)]

    def loss(self, batch: Batch, rng: Rng) -> Losses:
        """The negative evidence bound of a batch in nats per dimension, with β; without a prior, its likelihood alone."""
        return self._grade(batch, rng, self.task.corruption)

    def _grade(self, batch: Batch, rng: Rng, corruption: Corruption) -> Losses:
        task, x = self.task, pixels.encode(batch.image.to(self.device))
        posterior = self.model.posterior(corruption(x, rng))
        z = posterior.draw(rng.normal(*task.model.space))
        out = self.model.output(z)
        cost = task.model.likelihood.cost(out, x, self.model.log_scale)
        error = (task.model.likelihood.mean(out).detach() - x).square().flatten(1).mean(dim=1)
        noted = {"z": z.detach()}
        if posterior.logvar is None:
            return Losses(cost, {"mse": error}, noted)
        rate = posterior.cost().flatten(2).sum(dim=2)  # [B, channels], in nats
        priced = rate.clamp(min=task.free_bits * math.log(2.0)).sum(dim=1) / x[0].numel()
        rate = rate.detach().sum(dim=1) / x[0].numel()
        distortion, rate = cost.detach() / math.log(2.0), rate / math.log(2.0)
        terms = {"mse": error, "distortion": distortion, "rate": rate, "bpd": distortion + rate}
        return Losses(cost + self.beta * priced, terms, noted)

    @property
    def beta(self) -> float:
        """β at this point of the run."""
        warmup = self.task.warmup_images
        return self.task.beta * (min(1.0, int(self._seen) / warmup) if warmup else 1.0)

    def remember(self, noted: Mapping[str, Tensor]) -> None:
        """Count the pictures of a step, and learn the moments of their latents."""
        self._seen += len(noted["z"])
        self.model.follow(noted["z"])

    def memory(self) -> Mapping[str, Tensor]:
        return {"seen": self._seen}

    def preview(self) -> Tensor:
        return self.model.sample(count=PREVIEWS).images

    def validate(self, batches: Callable[[], Iterable[Batch]]) -> Mapping[str, float]:
        """Means of the loss's terms on undamaged pictures; the draws of latents are the same in every validation."""
        generator = torch.Generator(device=self.device).manual_seed(0)
        terms: dict[str, list[Tensor]] = {}
        for batch in batches():
            for name, values in self._grade(batch, Rng(generator, len(batch)), Corruption()).terms.items():
                terms.setdefault(name, []).append(values)
        return {f"held_out/{name}": torch.cat(parts).double().mean().item() for name, parts in terms.items()}

    def compile(self) -> None:
        self.model.network.compile()

    def exports(self) -> Mapping[str, Export]:
        return {"model": Export(self.module, "autoencoder", self.task.model.to_json())}
