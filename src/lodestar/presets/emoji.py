"""The runs of a model of emoji: text-to-image, in six languages and the hands of several artists; of the CLIP that reads its
texts, and of its upsampler."""

from __future__ import annotations

from lodestar.conditions import ClipText
from lodestar.core.draws import LogNormal
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.objectives import Simple
from lodestar.presets import shapes
from lodestar.presets.parts import small_unet
from lodestar.tasks import OptimizerConfig, TrainClip, TrainUnclip
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


def clip() -> Run:
    """The CLIP that reads captions for `text`; a model that draws learns their meaning with far more work."""
    run = shapes.clip()
    assert isinstance(run.task, TrainClip)
    network = run.task.model.network
    tower = network.text.replace(context=40, width=192, heads=6)
    model = run.task.model.replace(network=network.replace(text=tower), tokenizer=OwnTokenizer(size=2048))
    return run.replace(
        task=run.task.replace(model=model),
        data=_DATA,
        train=run.train.replace(images=170_000),
    )


def text() -> Run:
    """The text-to-image model of 32×32 pictures, told texts by the CLIP in ``runs/emoji.clip``, or in ``task.clip``.

    ``--init dalle2_shapes`` gives the network edges and plain colours to begin with. A caption is drawn from several languages
    each time. Pictures are not mirrored, as their captions tell where things point.
    """
    words = ClipText(length=40, width=192)
    denoiser = DenoiserConfig(network=small_unet(), prediction=Velocity(), channels=3, conditions=(words,))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(_SIZE, _SIZE), droppable=True)
    return Run(
        task=TrainUnclip(model=model, objective=Simple(), levels=_LEVELS, clip="runs/emoji.clip", caption_drop=0.1),
        data=_DATA,
        train=TrainConfig(
            images=140_000,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=20_000),),
        ),
    )


def up2() -> Run:
    """The upsampler from 32×32 to 64×64, without texts: few images are enough after ``--init dalle2_shapes_up2``."""
    run = shapes.up2()
    data = DataConfig(source=_DATA.source, transforms=run.data.transforms)
    return run.replace(data=data, train=run.train.replace(images=30_000))


RUNS = (clip, text, up2)
"""The runs of this file."""
