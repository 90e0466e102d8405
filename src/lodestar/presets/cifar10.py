"""The runs that made the embedded models of CIFAR-10."""

from __future__ import annotations

from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Hybrid
from lodestar.tasks import OptimizerConfig, TrainClassifier, TrainDenoiser
from lodestar.training.distill import settings
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig


def cifar10() -> Run:
    """The class-conditional diffusion model: 32×32, learned variance, labels dropped from one picture in ten.

    Small enough for two CPU cores: 0.4 billion multiplications a picture.
    """
    network = UNetConfig(
        width=32,
        multipliers=(1, 2, 4),
        blocks=(1, 2, 2),
        attention=(4,),
        head_channels=32,
        norm_groups=8,
        resample="plain",
        in_channels=3,
        out_channels=6,
    )
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), variance="learned_range", conditions=conditions(10))
    return Run(
        task=TrainDenoiser(model=DiffusionConfig(denoiser=denoiser, schedule=Cosine()), objective=Hybrid(), label_drop=0.1),
        data=DataConfig(source="cifar10-train.parquet", transforms=Transforms(flip=True)),
        train=TrainConfig(
            images=300_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=30_000),),
        ),
    )


def cifar10_weak() -> Run:
    """The weaker model for autoguidance: half as wide, and less trained."""
    run = cifar10()
    assert isinstance(run.task, TrainDenoiser)
    denoiser = run.task.model.denoiser
    narrow = denoiser.replace(network=denoiser.network.replace(width=16))
    return run.replace(
        task=run.task.replace(model=run.task.model.replace(denoiser=narrow)),
        train=run.train.replace(images=80_000, ema=(HalfLife(images=8_000),)),
    )


def cifar10_fast() -> Run:
    """The student of one step: a consistency model of the embedded `cifar10`, whose guidance it has learned."""
    guided = {"task.jump": True, "task.scale": 1.5, "task.low": 0.3, "task.high": 5.0}
    loop = {"train.images": 200_000, "train.optimizer.warmup_images": 4_000}
    data = {"data.source": "cifar10-train.parquet", "data.transforms.flip": True}
    return settings("cifar10", 32, [guided, loop, data])


def cifar10_classifier() -> Run:
    """The noise-aware classifier for guidance."""
    network = ClassifierConfig(
        width=32,
        multipliers=(1, 2, 4),
        blocks=(1, 1, 2),
        attention=(4,),
        head_channels=32,
        norm_groups=8,
        pool="attention",
    )
    return Run(
        task=TrainClassifier(model=ClassifierModelConfig(network=network, schedule=Cosine())),
        data=DataConfig(source="cifar10-train.parquet", transforms=Transforms(flip=True), held_out=0.02),
        train=TrainConfig(
            images=140_000,
            batch_size=32,
            optimizer=OptimizerConfig(rate=6e-4, betas=(0.9, 0.99), weight_decay=0.05, warmup_images=4_000, fall="cosine"),
            ema=(HalfLife(images=5_000),),
        ),
    )


def cifar10_features() -> Run:
    """The plain classifier for features of samples."""
    network = ClassifierConfig(
        width=32,
        multipliers=(1, 2, 4, 4),
        blocks=1,
        attention=(),
        head_channels=32,
        norm_groups=8,
        resample="plain",
        pool="adaptive",
    )
    return Run(
        task=TrainClassifier(model=ClassifierModelConfig(network=network, noised=False)),
        data=DataConfig(source="cifar10-train.parquet", transforms=Transforms(flip=True), held_out=0.02),
        train=TrainConfig(
            images=200_000,
            batch_size=32,
            optimizer=OptimizerConfig(rate=1e-3, betas=(0.9, 0.99), weight_decay=0.05, warmup_images=5_000, fall="cosine"),
            ema=(HalfLife(images=5_000),),
        ),
    )
