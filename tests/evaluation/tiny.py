"""A diffusion model, a guiding classifier, an extractor and a reference that measure in a moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from lodestar.conditions import Embedding, TextCondition
from lodestar.core.schedule import Linear
from lodestar.data import Source
from lodestar.data.arrays import ArrayRows
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.evaluation.extractors import ClassifierExtractor
from lodestar.generators.diffusion import Diffusion
from lodestar.images import save_png
from lodestar.models.classifier import ClassifierModelConfig, PictureClassifier
from lodestar.models.clip import ClipModelConfig, PictureClip
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.clip import ClipConfig, TextTowerConfig
from lodestar.nets.clip_image import ViTConfig
from lodestar.nets.text import TextTransformerConfig
from lodestar.nets.unet import UNetConfig
from lodestar.text import OwnTokenizer

M = TypeVar("M", bound=torch.nn.Module)
SCHEDULE = Linear(timesteps=50)
NAMES = ("cat", "dog", "ship")
BACKBONE: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (), "head_channels": 8, "norm_groups": 4}


def diffusion(
    seed: int = 0,
    channels: int = 3,
    droppable: bool = True,
    classes: int | None = len(NAMES),
    low_res: tuple[int, int] | None = None,
    size: tuple[int, int] = (8, 8),
) -> Diffusion:
    network = UNetConfig(**BACKBONE, in_channels=channels if low_res is None else 2 * channels, out_channels=channels)
    config = DiffusionConfig(
        denoiser=DenoiserConfig(network=network, conditions=conditions(classes, low_res)),
        schedule=Linear(timesteps=50),
        size=size,
        names=None if classes is None else NAMES,
        droppable=droppable and classes is not None,
        steps="2",
    )
    return randomized(Diffusion(config), seed)


def told(seed: int = 0) -> Diffusion:
    """A model of texts."""
    words = TextCondition(network=TextTransformerConfig(context=24, width=8, layers=1, heads=2))
    network = UNetConfig(**{**BACKBONE, "attention": (2,)})
    denoiser = DenoiserConfig(network=network, channels=3, conditions=(words,))
    config = DiffusionConfig(denoiser=denoiser, schedule=SCHEDULE, size=(8, 8), droppable=True, steps="2")
    return randomized(Diffusion(config), seed)


def clip(seed: int = 3) -> PictureClip:
    image = ViTConfig(size=(8, 8), embed=12, patch=4, width=16, layers=1, heads=2)
    network = ClipConfig(image=image, text=TextTowerConfig(vocabulary=300, context=24, width=16, layers=1, heads=2))
    return randomized(PictureClip(ClipModelConfig(network=network, tokenizer=OwnTokenizer(size=300, merges=""))), seed)


def decoder(seed: int = 4) -> Diffusion:
    """A decoder of such a CLIP's embeddings."""
    network = UNetConfig(**{**BACKBONE, "attention": (2,)})
    denoiser = DenoiserConfig(network=network, channels=3, conditions=(Embedding(embed=12, width=8, tokens=2),))
    config = DiffusionConfig(denoiser=denoiser, schedule=SCHEDULE, size=(8, 8), droppable=True, steps="2")
    return randomized(Diffusion(config), seed)


def classifier(
    seed: int = 1, channels: int = 3, size: tuple[int, int] = (8, 8), schedule: Linear = SCHEDULE
) -> PictureClassifier:
    network = ClassifierConfig(**BACKBONE, in_channels=channels, classes=len(NAMES), size=size, pool="adaptive")
    return randomized(PictureClassifier(ClassifierModelConfig(network=network, schedule=schedule, names=NAMES)), seed)


def extractor(seed: int = 2, channels: int = 3, size: tuple[int, int] = (8, 8)) -> ClassifierExtractor:
    return ClassifierExtractor("tiny", f"digest {seed}", classifier(seed, channels, size))


def reference(count: int = 24, channels: int = 3, side: int = 8, seed: int = 0) -> Source:
    shape = (count, side, side) if channels == 1 else (count, side, side, 3)
    images = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    return Source(ArrayRows(images, np.arange(count) % len(NAMES), NAMES), "noise", channels=channels)


def folder(path: Path, count: int) -> Path:
    """A folder of picture files."""
    source = reference(count, seed=5)
    for number in range(count):
        image = source.image(number)
        assert image is not None
        save_png(path / f"{number:02}.png", torch.from_numpy(image.copy()))
    return path


def randomized(model: M, seed: int) -> M:
    """Every weight random: as built, the last layers are zero and say the same of every picture."""
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.2, generator=generator)
    return model.requires_grad_(False).eval()
