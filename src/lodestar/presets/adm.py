"""Diffusion models beat GANs (Dhariwal and Nichol 2021): the models of openai/guided-diffusion, and another group's.

Networks, schedules and sampling are those of its README and model card, training follows the paper's tables 11 and 12 and the
README's examples. Batch sizes are the published totals over all devices: --batch-size and train.microbatch fit them to yours.
"""

from __future__ import annotations

from lodestar.conversion import ADM
from lodestar.conversion.adm import MULTIPLIERS
from lodestar.conversion.published import Published
from lodestar.core.schedule import AnySchedule, Cosine, Linear
from lodestar.data import Transforms
from lodestar.data.imagenet import NAMES
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.attention import Layout
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.unet import UNetConfig
from lodestar.presets.parts import attention, denoise, loop, model_of, openai
from lodestar.tasks import OptimizerConfig, TrainClassifier
from lodestar.training.run import DataConfig, Run

_LINEAR = Linear()
_URL = "https://openaipublic.blob.core.windows.net/diffusion/jul-2021/"


def _network(
    size: int,
    *,
    width: int = 256,
    blocks: int = 2,
    sides: tuple[int, ...] = (32, 16, 8),
    heads: int | None = None,
    layout: Layout = "heads_first",
    dropout: float = 0.0,
    widths: int | None = None,
) -> UNetConfig:
    """widths: the size whose multipliers of the width it has, where that is another."""
    return UNetConfig(
        width=width,
        multipliers=MULTIPLIERS[widths or size],
        blocks=blocks,
        attention=attention(size, sides),
        heads=heads,
        head_channels=64 if heads is None else None,
        layout=layout,
        dropout=dropout,
    )


def _model(
    size: int,
    network: UNetConfig | None = None,
    *,
    classes: int | None = 1000,
    low_res: int | None = None,
    schedule: AnySchedule = _LINEAR,
    steps: str = "250",
) -> DiffusionConfig:
    return openai(network or _network(size), size, classes=classes, low_res=low_res, schedule=schedule, steps=steps)


def imagenet64() -> Run:
    """ADM on ImageNet 64×64, the one whose attention has the new layout."""
    network = _network(64, width=192, blocks=3, layout="qkv_first", dropout=0.1)
    return denoise(_model(64, network, schedule=Cosine()), loop(540_000, 2048, 3e-4))


def imagenet128() -> Run:
    """ADM on ImageNet 128×128, with four heads at every resolution."""
    return denoise(_model(128, _network(128, heads=4)), loop(4_360_000, 256))


def imagenet256() -> Run:
    """ADM on ImageNet 256×256."""
    return denoise(_model(256), loop(1_980_000, 256))


def imagenet256_uncond() -> Run:
    """ADM on ImageNet 256×256 without classes, also guided by a classifier. Training as of `imagenet256`: it is not stated."""
    return denoise(_model(256, classes=None), loop(1_980_000, 256))


def imagenet512() -> Run:
    """ADM on ImageNet 512×512."""
    return denoise(_model(512), loop(1_940_000, 256))


def lsun_bedroom() -> Run:
    """ADM with dropout on LSUN bedrooms at 256×256."""
    return _lsun(500_000)


def lsun_cat() -> Run:
    """ADM with dropout on LSUN cats at 256×256."""
    return _lsun(200_000)


def lsun_horse() -> Run:
    """ADM with dropout on LSUN horses at 256×256."""
    return _lsun(250_000)


def lsun_horse_nodropout() -> Run:
    """ADM on LSUN horses at 256×256."""
    return _lsun(250_000, dropout=0.0)


def _lsun(iterations: int, dropout: float = 0.1) -> Run:
    model = _model(256, _network(256, dropout=dropout), classes=None, steps="1000")
    return denoise(model, loop(iterations, 256))


def ffhq256() -> Run:
    """The small model of faces of ILVR (Choi et al. 2021) and others, from 10 million pictures; its rate and batch are ours."""
    network = _network(256, width=128, blocks=1, sides=(16,))
    return denoise(_model(256, network, classes=None), loop(10_000_000 // 64, 64))


def upsample64_256() -> Run:
    """ADM-U: ImageNet at 256×256 from 64×64, with four heads at every resolution."""
    return denoise(_model(256, _network(256, width=192, heads=4), low_res=64), loop(500_000, 256))


def upsample128_512() -> Run:
    """ADM-U: ImageNet at 512×512 from 128×128."""
    network = _network(512, width=192, sides=(32, 16), widths=256)
    return denoise(_model(512, network, low_res=128), loop(1_050_000, 256))


def _classifier(
    size: int, iterations: int, *, depth: int = 2, schedule: AnySchedule = _LINEAR, decay: float = 0.05, batch_size: int = 256,
    rate: float = 3e-4,
) -> Run:  # fmt: skip
    network = ClassifierConfig(
        width=128,
        multipliers=MULTIPLIERS[size],
        blocks=depth,
        attention=attention(size, (32, 16, 8)),
        head_channels=64,
        layout="heads_first",
        pool="attention",
        classes=1000,
        size=(size, size),
    )
    return Run(
        task=TrainClassifier(model=ClassifierModelConfig(network=network, schedule=schedule, names=NAMES)),
        # Held out here and not by the authors: without any, a classifier's accuracy is not known.
        data=DataConfig(source="pictures", transforms=Transforms(size=(size, size), crop="random", flip=True), held_out=0.005),
        # The published classifiers are no averages.
        train=loop(iterations, batch_size, decay=0.0).replace(
            optimizer=OptimizerConfig(rate=rate, weight_decay=decay, fall="linear", clip=None)
        ),
    )


def imagenet64_classifier() -> Run:
    """The noise-aware classifier that guides ADM at 64×64."""
    return _classifier(64, 300_000, depth=4, schedule=Cosine(), decay=0.2, batch_size=1024, rate=6e-4)


def imagenet128_classifier() -> Run:
    """The noise-aware classifier that guides ADM at 128×128."""
    return _classifier(128, 300_000)


def imagenet256_classifier() -> Run:
    """The noise-aware classifier that guides ADM at 256×256."""
    return _classifier(256, 500_000)


def imagenet512_classifier() -> Run:
    """The noise-aware classifier that guides ADM at 512×512."""
    return _classifier(512, 500_000)


_FILES = {
    "adm-64": ("64x64_diffusion.pt", imagenet64),
    "adm-64-classifier": ("64x64_classifier.pt", imagenet64_classifier),
    "adm-128": ("128x128_diffusion.pt", imagenet128),
    "adm-128-classifier": ("128x128_classifier.pt", imagenet128_classifier),
    "adm-256": ("256x256_diffusion.pt", imagenet256),
    "adm-256-uncond": ("256x256_diffusion_uncond.pt", imagenet256_uncond),
    "adm-256-classifier": ("256x256_classifier.pt", imagenet256_classifier),
    "adm-512": ("512x512_diffusion.pt", imagenet512),
    "adm-512-classifier": ("512x512_classifier.pt", imagenet512_classifier),
    "adm-64-256": ("64_256_upsampler.pt", upsample64_256),
    "adm-128-512": ("128_512_upsampler.pt", upsample128_512),
    "adm-lsun-bedroom": ("lsun_bedroom.pt", lsun_bedroom),
    "adm-lsun-cat": ("lsun_cat.pt", lsun_cat),
    "adm-lsun-horse": ("lsun_horse.pt", lsun_horse),
    "adm-lsun-horse-nodropout": ("lsun_horse_nodropout.pt", lsun_horse_nodropout),
}

PUBLISHED: tuple[Published, ...] = (
    *(Published(f"openai/{name}", file, model_of(run), ADM, _URL + file) for name, (file, run) in _FILES.items()),
    Published("jychoi118/adm-ffhq-256", "ffhq_10m.pt", model_of(ffhq256), ADM, page="https://github.com/jychoi118/ilvr_adm"),
)

RUNS = (
    imagenet64, imagenet64_classifier, imagenet128, imagenet128_classifier, imagenet256, imagenet256_uncond,
    imagenet256_classifier, imagenet512, imagenet512_classifier, upsample64_256, upsample128_512, lsun_bedroom, lsun_cat,
    lsun_horse, lsun_horse_nodropout, ffhq256,
)  # fmt: skip
