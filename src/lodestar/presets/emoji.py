"""The run of a model of emoji: text-to-image, in six languages and the hands of several artists."""

from __future__ import annotations

from lodestar.conditions import TextCondition
from lodestar.core.draws import LogNormal
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Simple
from lodestar.tasks import OptimizerConfig, TrainDenoiser
from lodestar.text import OwnTokenizer
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig

_LEVELS = LogNormal(mean=1.2, std=1.4)
"""One large figure, as in `shapes`: its kind shows through much noise."""


def text() -> Run:
    """The text-to-image model of 64×64 pictures; a caption is drawn from several languages each time.

    Pictures are not mirrored, as their captions tell where things point.
    """
    network = UNetConfig(
        width=32,
        multipliers=(0.5, 1, 2, 4),
        blocks=(1, 1, 2, 2),
        attention=(8,),
        head_channels=32,
        norm_groups=8,
        resample="plain",
        coordinates=True,
        in_channels=3,
        out_channels=3,
    )
    blocks = TextTransformerConfig(context=40, width=192, layers=3, heads=6, neighbours=3)
    words = TextCondition(tokenizer=OwnTokenizer(size=2048), network=blocks)
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), channels=3, conditions=(words,))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(64, 64), droppable=True)
    return Run(
        task=TrainDenoiser(model=model, objective=Simple(), levels=_LEVELS, conditional=False, label_drop=0.0, caption_drop=0.1),
        data=DataConfig(
            source="emoji-styles.parquet@train,style!=openmoji",
            caption_column="caption*",
            style_column="style",
            transforms=Transforms(size=(64, 64)),
        ),
        train=TrainConfig(
            images=260_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=20_000),),
        ),
    )


RUNS = (text,)
"""The runs of this file."""
