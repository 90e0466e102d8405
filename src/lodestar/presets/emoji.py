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
_LEVELS = LogNormal(mean=0.8, std=1.5)
"""One large figure shows its kind through much noise, and then has a face."""
_DATA = DataConfig(
    source="emoji-styles.parquet@train,style!=openmoji",
    caption_column="caption*",
    style_column="style",
    transforms=Transforms(size=(_SIZE, _SIZE)),
)


def words() -> Run:
    """The run before `text`: pictures of 16×16 with their English names, until the network knows what these mean.

    Of 32×32 with names in six languages, three thousand things each seen some hundred times, 140,000 were not enough; of these,
    50,000 began to be.
    """
    run, small = text(), (_SIZE // 2, _SIZE // 2)
    assert isinstance(run.task, TrainDenoiser)
    task = run.task.replace(model=run.task.model.replace(size=small), levels=LogNormal(mean=1.2, std=1.3))
    return run.replace(
        task=task,
        data=run.data.replace(caption_column="caption", transforms=Transforms(size=small)),
        train=run.train.replace(images=150_000, batch_size=64),
    )


def text() -> Run:
    """The text-to-image model of 32×32 pictures, begun with `words`; a caption is drawn from several languages each time.

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
            images=100_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=20_000),),
        ),
    )


def up2() -> Run:
    """The upsampler from 32×32 to 64×64, which reads no text: that of `shapes`, learning from emoji."""
    run = shapes.up2()
    return run.replace(data=DataConfig(source=_DATA.source, transforms=run.data.transforms))


RUNS = (words, text, up2)
"""The runs of this file."""
