"""Improved denoising diffusion probabilistic models (Nichol and Dhariwal 2021): the models of openai/improved-diffusion.

Settings are those of its README. Chains have 4000 steps unless said; sampling takes 250 of them, as the paper finds enough.
"""

from __future__ import annotations

from lodestar.conversion import ADM
from lodestar.conversion.adm import MULTIPLIERS
from lodestar.conversion.published import Published
from lodestar.core.draws import AnyLevels, LossSecondMoment, Uniform
from lodestar.core.schedule import AnySchedule, Cosine, Linear
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import AnyObjective, Bound, Hybrid
from lodestar.presets.parts import attention, denoise, loop, model_of, openai
from lodestar.training.run import Run, TrainConfig

_URL = "https://openaipublic.blob.core.windows.net/diffusion/march-2021/"

_CIFAR = "cifar10-train.parquet"

_CHAIN = Cosine(timesteps=4000, rescale_time=True)

# λ = 0.001 of the bound next to the simple loss is T/1000 of its term at one step.
_HYBRID, _UNIFORM = Hybrid(vlb_weight=4.0), Uniform()


def _network(
    size: int,
    *,
    width: int = 128,
    blocks: int = 3,
    heads: int = 4,
    sides: tuple[int, ...] = (16, 8),
    adaptive: bool = True,
    dropout: float = 0.0,
) -> UNetConfig:
    return UNetConfig(
        width=width,
        multipliers=MULTIPLIERS[size],
        blocks=blocks,
        attention=attention(size, sides),
        heads=heads,
        head_channels=None,
        layout="heads_first",
        resample="conv",
        adaptive_norm=adaptive,
        dropout=dropout,
    )


def imagenet64() -> Run:
    """Unconditional ImageNet 64×64, the hybrid loss."""
    return _run(_model(64), loop(1_500_000, 128))


def imagenet64_vlb() -> Run:
    """Unconditional ImageNet 64×64, the variational bound itself, at levels drawn by their loss."""
    return _run(_model(64), loop(1_500_000, 128), Bound(rescaled=True), levels=LossSecondMoment())


def cifar10() -> Run:
    """CIFAR-10 without its classes, the hybrid loss."""
    return _run(_cifar(), loop(500_000, 128), source=_CIFAR)


def cifar10_vlb() -> Run:
    """CIFAR-10 without its classes, the variational bound itself, at levels drawn by their loss."""
    return _run(_cifar(), loop(500_000, 128), Bound(rescaled=True), levels=LossSecondMoment(), source=_CIFAR)


def _cifar() -> DiffusionConfig:
    return _model(32, _network(32, dropout=0.3))


def imagenet64_cond() -> Run:
    """Class-conditional ImageNet 64×64. Its network is told the steps' numbers as they are."""
    model = _model(64, _network(64, width=192), classes=1000, schedule=Cosine(timesteps=4000))
    return _run(model, loop(250_000, 2048, 3e-4), Hybrid())


def upsample64_256() -> Run:
    """Class-conditional ImageNet at 256×256 from 64×64."""
    network = _network(256, width=192, blocks=2)
    return _run(
        _model(256, network, classes=1000, low_res=64, schedule=Linear(timesteps=4000)), loop(500_000, 256, 3e-4), Hybrid()
    )


def lsun_bedroom() -> Run:
    """LSUN bedrooms at 256×256, with the network of DDPM: one head, the embedding added; a linear chain of 1000 steps."""
    return _run(_lsun(), loop(1_200_000, 128), Hybrid())


def lsun_bedroom_slow() -> Run:
    """LSUN bedrooms as above, at a fifth of the learning rate for twice as long (published as "bs64")."""
    return _run(_lsun(), loop(2_400_000, 128, 2e-5), Hybrid())


def _lsun() -> DiffusionConfig:
    network = _network(256, blocks=2, heads=1, sides=(16,), adaptive=False)
    return _model(256, network, schedule=Linear(), steps="1000")


def _model(
    size: int,
    network: UNetConfig | None = None,
    *,
    classes: int | None = None,
    low_res: int | None = None,
    schedule: AnySchedule = _CHAIN,
    steps: str = "250",
) -> DiffusionConfig:
    return openai(network or _network(size), size, classes=classes, low_res=low_res, schedule=schedule, steps=steps)


def _run(
    model: DiffusionConfig,
    train: TrainConfig,
    objective: AnyObjective = _HYBRID,
    *,
    levels: AnyLevels = _UNIFORM,
    source: str = "pictures",
) -> Run:
    return denoise(model, train, objective=objective, levels=levels, flip=False, source=source)


_FILES = {
    "iddpm-imagenet64": ("imagenet64_uncond_100M_1500K.pt", imagenet64),
    "iddpm-imagenet64-vlb": ("imagenet64_uncond_vlb_100M_1500K.pt", imagenet64_vlb),
    "iddpm-cifar10": ("cifar10_uncond_50M_500K.pt", cifar10),
    "iddpm-cifar10-vlb": ("cifar10_uncond_vlb_50M_500K.pt", cifar10_vlb),
    "iddpm-imagenet64-cond": ("imagenet64_cond_270M_250K.pt", imagenet64_cond),
    "iddpm-64-256": ("upsample_cond_500K.pt", upsample64_256),
    "iddpm-lsun-bedroom": ("lsun_uncond_100M_1200K_bs128.pt", lsun_bedroom),
    "iddpm-lsun-bedroom-slow": ("lsun_uncond_100M_2400K_bs64.pt", lsun_bedroom_slow),
}

PUBLISHED: tuple[Published, ...] = tuple(
    Published(f"openai/{name}", file, model_of(run), ADM, _URL + file) for name, (file, run) in _FILES.items()
)

RUNS = (imagenet64, imagenet64_vlb, imagenet64_cond, cifar10, cifar10_vlb, upsample64_256, lsun_bedroom, lsun_bedroom_slow)
