"""Runs of GANs and denoising diffusion GANs, on the digits, on CIFAR-10 and on emoji: ``digits.gan``, ``cifar10.ddgan`` …"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lodestar.core.prediction import X0
from lodestar.core.schedule import Cosine
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.diffusion import DiffusionConfig
from lodestar.models.discriminator import DiscriminatorModelConfig
from lodestar.models.gan import GanConfig
from lodestar.nets.gan import ResidualDiscriminatorConfig, ResidualGeneratorConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets.autoencoders import DATA, SIZES
from lodestar.samplers import Ancestral
from lodestar.tasks import OptimizerConfig, TrainDDGan, TrainDiscriminator, TrainGan
from lodestar.tasks.augment import DiffAugment
from lodestar.training.ema import HalfLife
from lodestar.training.run import Run, TrainConfig

MULTIPLIERS: Mapping[str, tuple[float, ...]] = {"digits": (1, 2, 2), "cifar10": (1, 2, 2, 2), "emoji": (0.5, 1, 2, 2, 2)}
"""Widths of the resolutions for a data set, down to 2×2 or 4×4."""


def loop(data: str) -> TrainConfig:
    """The training loop for a data set."""
    small = data == "digits"
    images = 150_000 if small else 600_000
    return TrainConfig(
        images=images,
        batch_size=64 if small else 32,
        optimizer=OptimizerConfig(rate=5e-4, betas=(0.0, 0.99), clip=None),
        ema=(HalfLife(images=5_000 if small else 20_000),),
        save_every=images // 5,
        preview_every=images // 10,
    )


def gan(data: str) -> Run:
    """A GAN of residual blocks, with classes where the data has any; a twentieth of the data is held out to see lost modes."""
    small = data == "digits"
    network = ResidualGeneratorConfig(
        in_channels=1 if small else 3, multipliers=MULTIPLIERS[data], width=32, blocks=1, norm_groups=8,
        size=SIZES[data], resample="plain",
    )  # fmt: skip
    opponent = ResidualDiscriminatorConfig(
        in_channels=network.in_channels, multipliers=MULTIPLIERS[data], width=32, blocks=1, norm_groups=8, resample="plain"
    )
    task = TrainGan(
        model=GanConfig(network=network),
        discriminator=opponent,
        r1=0.05 if small else 1.0,
        r1_every=4,
        augment=DiffAugment(translation=0.125) if small else DiffAugment(colour=1.0, translation=0.125, cutout=0.5),
        conditional=data != "emoji",
    )
    return Run(task=task, data=DATA[data].replace(held_out=0.05), train=loop(data))


def ddgan(data: str) -> Run:
    """A denoising diffusion GAN of four steps.

    The discriminator takes three steps for each of the generator's; with as many steps, the discriminator ends blind.
    """
    made, small = gan(data), data == "digits"
    network = UNetConfig(
        width=32, multipliers=(1, 2) if small else (1, 2, 4), blocks=1, attention=(2,) if small else (4,), norm_groups=8,
        in_channels=1 if small else 3, out_channels=1 if small else 3, resample="plain",
    )  # fmt: skip
    denoiser = DenoiserConfig(network=network, prediction=X0(), conditions=conditions(10), latent=32)
    model = DiffusionConfig(
        denoiser=denoiser, schedule=Cosine(), size=SIZES[data], steps="trailing:4", sampler=Ancestral(variance="small")
    )
    assert isinstance(made.task, TrainGan) and isinstance(made.task.discriminator, ResidualDiscriminatorConfig)
    opponent = made.task.discriminator.replace(in_channels=2 * network.in_channels)
    task = TrainDDGan(model=model, discriminator=opponent, r1=0.02, r1_every=4, generator_every=3)
    return made.replace(task=task, train=made.train.replace(images=2 * made.train.images))


def discriminator(data: str) -> Run:
    """A discriminator for guidance, to be trained against a diffusion model, as the classifier of the data is."""
    made = gan(data)
    assert isinstance(made.task, TrainGan) and isinstance(made.task.discriminator, ResidualDiscriminatorConfig)
    model = DiscriminatorModelConfig(network=made.task.discriminator.replace(timed=True), schedule=Cosine(), size=SIZES[data])
    images = 50_000 if data == "digits" else 140_000
    loop = made.train.replace(
        images=images,
        optimizer=OptimizerConfig(rate=5e-4, betas=(0.9, 0.99), weight_decay=0.05, warmup_images=4_000, fall="cosine"),
        ema=(HalfLife(images=5_000),),
        save_every=images // 5,
        preview_every=images // 5,
    )
    return made.replace(task=TrainDiscriminator(model=model), train=loop)


RUNS: Mapping[str, Callable[[], Run]] = {
    **{f"{data}.gan": partial(gan, data) for data in DATA},
    **{f"{data}.{make.__name__}": partial(make, data) for data in ("digits", "cifar10") for make in (ddgan, discriminator)},
}
"""Runs by name."""
