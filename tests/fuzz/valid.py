"""What is damaged: one valid thing of each kind, small, made once."""

from __future__ import annotations

import os
import shutil
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from lodestar import checkpoint
from lodestar.__main__ import main
from lodestar.config import Problem
from lodestar.data import open_source
from lodestar.data.parquet import write_parquet
from lodestar.evaluation.kept import keep
from lodestar.evaluation.statistics import PARTS, Collector
from lodestar.generators.diffusion import Diffusion
from lodestar.models.classifier import PictureClassifier
from tests.conversion.foreign import STATES, state
from tests.evaluation import tiny

RUN = (
    "digits task.model.denoiser.network.width=8 task.model.denoiser.network.head_channels=8 task.model.schedule.timesteps=20 "
    "task.model.steps=trailing:2 train.images=8 train.batch_size=8"
)
"""A training run of a moment."""


@dataclass(frozen=True)
class Valid:
    """Where they are."""

    home: Path

    def path(self, name: str) -> Path:
        """Of model, upsampler, classifier, kept (.safetensors); album, edited, run, diffusers, folder; tiny, tiny_guide (.pt);
        folder.zip, told.zip, folder.tar, folder.tar.gz, stored.npz, packed.npz, folder.parquet; picture.png, mask.png."""
        return self.home / name

    def bytes(self, name: str) -> bytes:
        """The contents of a file."""
        return self.path(name).read_bytes()

    def copy(self, name: str, to: Path) -> Path:
        """A file, or a folder, in another folder."""
        source, path = self.path(name), to / name
        if source.is_dir():
            shutil.copytree(source, path)
        else:
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, path)
        return path


def command(*arguments: object) -> Callable[[], None]:
    """A command line, to be run."""
    return lambda: main([str(each) for each in arguments])


def python(do: Callable[[], Any]) -> Callable[[], None]:
    """A call from Python: what is refused is a `Problem`, and its text is the one line."""

    def door() -> None:
        try:
            do()
        except Problem as problem:
            os.write(2, f"lodestar: {problem}\n".encode(errors="backslashreplace"))
            raise SystemExit(2) from None

    return door


def write(path: Path, data: bytes) -> Path:
    """A file with these contents."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def saved(path: Path, model: Diffusion | PictureClassifier) -> None:
    """A model's file."""
    module: nn.Module = model
    checkpoint.save(path, model.config.kind, model.config.to_json(), module.state_dict(), {"images_seen": 8, "data": {"of": "x"}})


def make(home: Path) -> Valid:
    """All of them, in a folder. To be called in a process of its own: a part of it starts threads."""
    home.mkdir(parents=True, exist_ok=True)
    valid = Valid(home)
    saved(valid.path("model.safetensors"), tiny.diffusion())
    saved(valid.path("upsampler.safetensors"), tiny.diffusion(low_res=(4, 4)))
    saved(valid.path("classifier.safetensors"), tiny.classifier())
    for file, shapes in list(STATES.items())[:2]:
        torch.save(state(shapes), valid.path(file))
    _pictures(valid)
    source, extractor = tiny.reference(), tiny.extractor()
    collector = Collector(PARTS)
    collector.add(extractor(torch.from_numpy(np.stack([source[k][0] for k in range(len(source))]))))
    keep(valid.path("kept.safetensors"), source, collector.statistics(), extractor)
    _commands(valid)
    return valid


def _pictures(valid: Valid) -> None:
    rng, arrays, numbers = np.random.default_rng(0), [], []
    for number in range(9):
        array = rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)
        path = valid.path(f"folder/{tiny.NAMES[number % 3]}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(array).save(path)
        arrays.append(array)
        numbers.append(number % 3)
    shutil.copyfile(valid.path("folder/cat/0.png"), valid.path("picture.png"))
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5, 2:5] = 255
    Image.fromarray(mask).save(valid.path("mask.png"))
    with zipfile.ZipFile(valid.path("folder.zip"), "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(valid.path("folder").rglob("*.png")):
            archive.write(path, path.relative_to(valid.path("folder")))
    with zipfile.ZipFile(valid.path("told.zip"), "w") as archive:
        files = sorted(valid.path("folder").rglob("*.png"))
        for path in files:
            archive.write(path, path.name)
        labels = ", ".join(f'["{path.name}", {int(path.stem) % 3}]' for path in files)
        archive.writestr("dataset.json", f'{{"labels": [{labels}]}}')
    for name in ("folder.tar", "folder.tar.gz"):
        with tarfile.open(valid.path(name), "w:gz" if name.endswith("gz") else "w") as tar:
            tar.add(valid.path("folder"), "")
    images, labelled = np.stack(arrays), np.array(numbers)
    np.savez(valid.path("stored.npz"), images, labelled)
    np.savez_compressed(valid.path("packed.npz"), images, labelled)
    pictures = open_source(str(valid.path("folder")))
    write_parquet(
        valid.path("folder.parquet"), [(pictures.rows.encoded(k), numbers[k]) for k in range(len(pictures))], pictures.names or ()
    )


def _commands(valid: Valid) -> None:
    model = valid.path("model.safetensors")
    commands: Sequence[Sequence[object]] = (
        ("sample", model, "--count", 3, "--out", valid.path("album")),
        ("edit", "sdedit", model, valid.path("picture.png"), "--steps", 4, "--label", "cat", "--out", valid.path("edited")),
        ("export", model, valid.path("diffusers")),
        ("train", *RUN.split(), "--out", valid.path("run")),
    )
    for arguments in commands:
        try:
            main([str(each) for each in arguments])
        except SystemExit as exit_:
            assert exit_.code == 0, arguments
