"""Denoising diffusion probabilistic models (Ho et al. 2020), as w86763777/pytorch-ddpm trains and publishes CIFAR-10's."""

from __future__ import annotations

from lodestar.conversion import DDPM
from lodestar.conversion.adm import MULTIPLIERS
from lodestar.conversion.published import Published
from lodestar.core.schedule import Linear
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Simple
from lodestar.presets.parts import attention, denoise, loop, model_of
from lodestar.samplers import Ancestral
from lodestar.training.run import Run


def cifar10() -> Run:
    """DDPM on CIFAR-10: ε, fixed large variance, one head at 16×16, the whole chain in sampling."""
    network = UNetConfig(
        width=128,
        multipliers=MULTIPLIERS[32],
        blocks=2,
        attention=attention(32, (16,)),
        heads=1,
        head_channels=None,
        resample="conv",
        adaptive_norm=False,
        dropout=0.1,
    )
    model = DiffusionConfig(
        denoiser=DenoiserConfig(network=network),
        schedule=Linear(single=True),
        sampler=Ancestral(variance="large"),
        steps="1000",
    )
    return denoise(
        model,
        loop(800_000, 128, 2e-4, warmup_images=128 * 5_000, clip=1.0),
        objective=Simple(),
        source="cifar10-train.parquet",
    )


PUBLISHED: tuple[Published, ...] = (
    Published("w86763777/ddpm-cifar10", "ckpt.pt", model_of(cifar10), DDPM, page="https://github.com/w86763777/pytorch-ddpm"),
)

RUNS = (cifar10,)
