"""Imagen in small (Saharia et al. 2022), for shapes and emoji: ``shapes.imagen``, ``shapes.imagen_up``, ``emoji.imagen`` …

A frozen language model reads the caption, pooled and attended; x̂₀ is limited by its own quantile; a second model enlarges, told
how noisy the small picture is. Both stages read the text.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from lodestar.conditions import LowRes, TextCondition
from lodestar.core.prediction import Velocity
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig
from lodestar.guidance import Threshold
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.objectives import Simple
from lodestar.presets import emoji, shapes
from lodestar.presets.parts import small_unet
from lodestar.tasks import OptimizerConfig, TrainDenoiser
from lodestar.text import LanguageModel
from lodestar.training.ema import HalfLife
from lodestar.training.run import Run, TrainConfig

_SMALL = 32
"""Side of the first stage's pictures; the second's is twice as long."""
ENCODERS: Mapping[str, str] = {"shapes": "google/t5-v1_1-small", "emoji": "google/mt5-small"}
"""Language models by data set: emoji have captions in six languages."""
_BASES: Mapping[str, Callable[[], Run]] = {"shapes": shapes.text, "emoji": emoji.text}


def imagen(data: str, enlarging: bool = False) -> Run:
    """The first stage, pictures of 32×32, or the one that enlarges them to 64×64."""
    side = 2 * _SMALL if enlarging else _SMALL
    network = small_unet()
    if enlarging:
        network = network.replace(multipliers=(1, 2, 3), blocks=1, attention=(4,), coordinates=False, in_channels=6)
    words = TextCondition(
        tokenizer=LanguageModel(model=ENCODERS[data]),
        network=TextTransformerConfig(context=40, width=128, layers=1, heads=4, pooled="mean"),
    )
    small = [LowRes(size=(_SMALL, _SMALL), augment=1.0, tells="logsnr")] if enlarging else []
    denoiser = DenoiserConfig(network=network, prediction=Velocity(), channels=3, conditions=(words, *small))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(), size=(side, side), droppable=True, limit=Threshold())
    images = 200_000 if enlarging else 500_000
    return Run(
        task=TrainDenoiser(model=model, objective=Simple(), conditional=False, label_drop=0.0, caption_drop=0.1),
        data=_BASES[data]().data.replace(transforms=Transforms(size=(side, side))),
        train=TrainConfig(
            images=images,
            batch_size=32,
            optimizer=OptimizerConfig(method="muon", rate=1e-3, betas=(0.9, 0.99), warmup_images=10_000, fall="cosine"),
            ema=(HalfLife(images=20_000),),
        ),
    )


RUNS: Mapping[str, Callable[[], Run]] = {
    f"{data}.{name}": partial(imagen, data, enlarging)
    for data in ENCODERS
    for name, enlarging in (("imagen", False), ("imagen_up", True))
}
"""Runs by name."""
