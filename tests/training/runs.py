"""Runs that take a second: 8×8 pictures, networks of eight channels."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from lodestar import checkpoint
from lodestar.core.schedule import Cosine
from lodestar.data import Transforms
from lodestar.denoiser import DenoiserConfig, conditions
from lodestar.models.classifier import ClassifierModelConfig
from lodestar.models.diffusion import DiffusionConfig
from lodestar.nets.classifier import ClassifierConfig
from lodestar.nets.unet import UNetConfig
from lodestar.objectives import Hybrid
from lodestar.tasks import OptimizerConfig, TrainClassifier, TrainDenoiser
from lodestar.training.ema import HalfLife, Power
from lodestar.training.loop import train
from lodestar.training.names import STATE
from lodestar.training.run import DataConfig, Run, TrainConfig

SMALL: dict[str, Any] = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (2,), "head_channels": 8, "norm_groups": 4}


def write_pictures(folder: Path, count: int = 20) -> str:
    """A folder of pictures in three classes, each class brighter than the one before; its path."""
    rng = np.random.default_rng(0)
    for number in range(count):
        path = folder / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((rng.integers(0, 90, (8, 8, 3)) + 80 * (number % 3)).astype(np.uint8)).save(path)
    return str(folder)


def denoising(source: str, **settings: Any) -> Run:
    """A run with everything random in it: dropout, label drop, flips, levels, noise; microbatches; epochs of 2½ batches."""
    network = UNetConfig(**SMALL, out_channels=6, dropout=0.2)
    denoiser = DenoiserConfig(network=network, variance="learned_range", conditions=conditions(3))
    model = DiffusionConfig(denoiser=denoiser, schedule=Cosine(timesteps=20), size=(8, 8))
    settings = {
        "images": 96,
        "batch_size": 8,
        "microbatch": 3,
        "optimizer": OptimizerConfig(rate=1e-3, weight_decay=0.01, warmup_images=16, fall="cosine", clip=0.5),
        "ema": (HalfLife(images=50), Power()),
        "precision": "float32",
        "log_every": 24,
        "save_every": 32,
        "preview_every": 1_000_000,
    } | settings
    return Run(
        task=TrainDenoiser(model=model, objective=Hybrid(), label_drop=0.3),
        data=DataConfig(source=source, transforms=Transforms(flip=True)),
        train=TrainConfig(**settings),
    )


def classifying(source: str, noised: bool = False, **settings: Any) -> Run:
    """A run without randomness in its losses, unless pictures are noised."""
    network = ClassifierConfig(**SMALL, size=(8, 8), pool="attention", classes=3)
    run = denoising(source, **{"microbatch": None} | settings)
    return run.replace(
        task=TrainClassifier(model=ClassifierModelConfig(network=network, schedule=Cosine(timesteps=20), noised=noised))
    )


def saved(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The counters of a run's checkpoint, but for the time, and its tensors."""
    header, tensors = checkpoint.load(folder / STATE, "state")
    return {name: value for name, value in header.provenance.items() if name != "seconds"}, tensors


def logged(folder: Path) -> list[dict[str, float]]:
    """The lines of a run's log, without what the clock decides."""
    lines = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("time", "images_per_second")} for line in lines]


def assert_same(a: Path, b: Path) -> None:
    """Two folders hold the same run, bit for bit."""
    (counters, tensors), (other_counters, other_tensors) = saved(a), saved(b)
    assert counters == other_counters
    assert tensors.keys() == other_tensors.keys()
    for name, tensor in tensors.items():
        assert torch.equal(tensor, other_tensors[name]), name
    assert logged(a) == logged(b)
    models = [checkpoint.load(folder / "model.safetensors")[1] for folder in (a, b)]
    assert all(torch.equal(tensor, models[1][name]) for name, tensor in models[0].items())


if __name__ == "__main__":
    # python runs.py PICTURES FOLDER N: the run of `denoising`, killed when it would put a file in its place for the Nth time.
    import os
    import signal

    calls, replace = 0, os.replace

    def replace_or_die(*paths: Any) -> None:
        global calls
        calls += 1
        if calls == int(sys.argv[3]):
            os.kill(os.getpid(), signal.SIGKILL)
        replace(*paths)

    os.replace = replace_or_die  # type: ignore[assignment]
    train(denoising(sys.argv[1]), sys.argv[2])
