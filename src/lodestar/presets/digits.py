"""Runs on the 8×8 digits that scikit-learn carries: no download, minutes on a CPU."""

from __future__ import annotations

from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Hybrid
from lodestar.tasks import OptimizerConfig, TrainClassifier, TrainDenoiser
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig


def digits() -> Run:
    """A class-conditional diffusion model with learned variance."""
    network = UNetConfig(
        width=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(2,),
        norm_groups=8,
        in_channels=1,
        out_channels=2,
    )
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), variance="learned_range", conditions=conditions(10))
    return Run(
        task=TrainDenoiser(model=DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(8, 8)), objective=Hybrid()),
        data=DataConfig(source="digits"),
        train=TrainConfig(
            images=60_000,
            batch_size=64,
            optimizer=OptimizerConfig(rate=2e-3, betas=(0.9, 0.99), warmup_images=2_000, fall="cosine"),
            ema=(HalfLife(images=10_000),),
            save_every=20_000,
            preview_every=20_000,
        ),
    )


def digits_classifier() -> Run:
    """The noise-aware classifier for guidance."""
    network = ClassifierConfig(
        in_channels=1,
        width=32,
        multipliers=(1, 2),
        blocks=1,
        attention=(2,),
        norm_groups=8,
        size=(8, 8),
    )
    return Run(
        task=TrainClassifier(model=ClassifierModelConfig(network=network, schedule=Cosine())),
        data=DataConfig(source="digits", held_out=0.02),
        train=TrainConfig(
            images=50_000,
            batch_size=64,
            optimizer=OptimizerConfig(rate=1e-3, weight_decay=0.05, fall="cosine"),
            ema=(HalfLife(images=5_000),),
            save_every=20_000,
            preview_every=20_000,
        ),
    )
