"""The runs of a model of emoji: text-to-image, in six languages and the hands of several artists, and its upsampler."""

from __future__ import annotations

from lodestar.conditions import TextCondition
from lodestar.core.draws import LogNormal
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.objectives import Simple
from lodestar.presets import shapes
from lodestar.presets.parts import small_unet
from lodestar.tasks import OptimizerConfig, TrainDenoiser
from lodestar.text import OwnTokenizer
from lodestar.training.ema import HalfLife
from lodestar.training.run import DataConfig, Run, TrainConfig

_SIZE = 32
_LEVELS = LogNormal(mean=0.6, std=1.5)
"""One large figure shows its kind through much noise, and then has a face."""
_DATA = DataConfig(
    source="emoji-styles.parquet@train,style!=openmoji",
    caption_column="caption*",
    style_column="style",
    transforms=Transforms(size=(_SIZE, _SIZE)),
)


def text() -> Run:
    """The text-to-image model of 32×32 pictures; a caption is drawn from several languages each time.

    Pictures are not mirrored, as their captions tell where things point.
    """
    blocks = TextTransformerConfig(context=40, width=192, layers=3, heads=6, neighbours=3)
    words = TextCondition(tokenizer=OwnTokenizer(size=2048), network=blocks)
    denoiser = DenoiserConfig(network=small_unet(), prediction=Velocity(), channels=3, conditions=(words,))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(_SIZE, _SIZE), droppable=True)
    return Run(
        task=TrainDenoiser(model=model, objective=Simple(), levels=_LEVELS, conditional=False, label_drop=0.0, caption_drop=0.1),
        data=_DATA,
        train=TrainConfig(
            images=300_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=20_000),),
        ),
    )


def up2() -> Run:
    """The upsampler from 32×32 to 64×64, which reads no text: that of `shapes`, learning from emoji."""
    run = shapes.up2()
    return run.replace(data=DataConfig(source=_DATA.source, transforms=run.data.transforms))


RUNS = (text, up2)
"""The runs of this file."""
