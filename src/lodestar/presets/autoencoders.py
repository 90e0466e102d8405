"""Runs of autoencoders, each on the digits, on CIFAR-10 and on emoji: ``digits.vae``, ``cifar10.vae``, ``emoji.vae``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from lodestar.codecs import AutoencoderCodec, VQVAECodec
from lodestar.codecs.likelihood import GaussianLikelihood
from lodestar.data import Transforms
from lodestar.nets.autoencoder import AutoencoderConfig
from lodestar.nets.codebook import CodebookConfig
from lodestar.nets.pyramid import PyramidConfig
from lodestar.tasks import Autoencode, OptimizerConfig, TrainVQVAE
from lodestar.tasks.autoencode import Corruption
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig

NETWORKS: Mapping[str, AutoencoderConfig] = {
    # The digits' latents are 16 numbers, so that they can be drawn one by one; the others' are maps of 8×8.
    "digits": AutoencoderConfig(in_channels=1, multipliers=(1, 2, 2, 2), latent=16, width=16, blocks=1, norm_groups=8),
    "cifar10": AutoencoderConfig(in_channels=3, multipliers=(1, 2, 4), latent=8, width=32, blocks=1, norm_groups=8),
    "emoji": AutoencoderConfig(in_channels=3, multipliers=(0.5, 1, 2, 4), latent=8, width=32, blocks=1, norm_groups=8),
}
"""Networks of the data sets."""
SIZES: Mapping[str, tuple[int, int]] = {"digits": (8, 8), "cifar10": (32, 32), "emoji": (64, 64)}
"""Sizes of their pictures."""
DATA: Mapping[str, DataConfig] = {
    "digits": DataConfig(source="digits"),
    "cifar10": DataConfig(source="cifar10-train.parquet", transforms=Transforms(flip=True)),
    "emoji": DataConfig(source="emoji-styles.parquet@train,style!=openmoji", transforms=Transforms(size=(64, 64))),
}
"""Pictures of the data sets."""


def loop(data: str) -> TrainConfig:
    """The training loop for a data set."""
    small = data == "digits"
    images, warmup, half_life = (60_000, 2_000, 5_000) if small else (400_000, 10_000, 20_000)
    return TrainConfig(
        images=images,
        batch_size=64 if small else 32,
        optimizer=OptimizerConfig(rate=2e-3 if small else 1e-3, betas=(0.9, 0.99), warmup_images=warmup, fall="cosine"),
        ema=(HalfLife(images=half_life),),
        save_every=images // 3,
        preview_every=images // 3,
    )


def autoencoder(data: str, **settings: Any) -> Run:
    """A run of a data set; settings: of the task, and `posterior` of its model."""
    posterior = settings.pop("posterior", "point")
    model = AutoencoderCodec(
        network=NETWORKS[data].replace(resample="plain"),
        size=SIZES[data],
        posterior=posterior,
        likelihood=GaussianLikelihood(scale=0.3),
    )
    return Run(task=Autoencode(model=model, **settings), data=DATA[data], train=loop(data))


def vae(data: str) -> Run:
    """A VAE, whose latents cost nothing at first: otherwise it may end with none that says anything."""
    return autoencoder(data, posterior="gaussian", warmup_images=loop(data).images // 2)


def vqvae(data: str, levels: int = 1) -> Run:
    """A VQ-VAE; of two levels, a VQ-VAE-2. On digits, maps of codes are 2×2 and 1×1."""
    small = data == "digits"
    book = CodebookConfig(codes=64, channels=16) if small else CodebookConfig(codes=512, channels=32)
    width, hidden = (32, 16) if small else (64, 32)
    network = PyramidConfig(
        in_channels=NETWORKS[data].in_channels, levels=levels, width=width, hidden=hidden, blocks=2, book=book
    )
    return Run(task=TrainVQVAE(model=VQVAECodec(network=network, size=SIZES[data])), data=DATA[data], train=loop(data))


KINDS: Mapping[str, Callable[[str], Run]] = {
    "ae": autoencoder,
    "dae": partial(autoencoder, corruption=Corruption(noise=0.2, masking=0.2, salt=0.1)),
    "vae": vae,
    "vqvae": vqvae,
    "vqvae2": partial(vqvae, levels=2),
}
"""Kinds of runs: a plain autoencoder, a denoising one, a VAE, a VQ-VAE and a VQ-VAE-2."""

RUNS: Mapping[str, Callable[[], Run]] = {f"{data}.{kind}": partial(make, data) for data in DATA for kind, make in KINDS.items()}
"""Runs by name."""
