"""The loader against training: pictures a second from webdataset shards, and those that a preset's steps take."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from common import Goal, Setting, chosen, own_time, seconds
from PIL import Image
from rich.table import Table

from lodestar.config import edit
from lodestar.data import Shuffled, open_source
from lodestar.data.pack import pack
from lodestar.presets import RUNS
from lodestar.training.inputs import Given
from lodestar.training.pace import prepared
from lodestar.training.start import start
from lodestar.training.step import Step

_SHARDS = 4


def loader(setting: Setting) -> Iterator[Table | Goal]:
    """Batches of shards that are read for the first time, against training steps of `cifar10` on batches of that size."""
    run = RUNS["cifar10"]()
    if setting.batches == (2,):
        run = edit(run, [{"train.batch_size": 2}])
    batch, transforms = run.train.batch_size, run.data.transforms
    count = batch * (setting.repeats + 2)
    with tempfile.TemporaryDirectory() as folder:
        pattern = str(Path(folder) / "{:05d}.tar")
        pictures = [{"image": _picture(number), "label": str(number % 10)} for number in range(count)]
        pack(open_source(pictures), pattern, -(-count // _SHARDS))
        source = open_source(str(Path(folder) / "*.tar"))
        run, random, facts = prepared(run, "cpu", Given(pictures))
        step = Step(run, start(run, Path(os.devnull), "cpu", facts=facts))
        given = next(Shuffled(random, batch, transforms, workers=0).batches(0))
        batches = Shuffled(source, batch, transforms, workers=0).batches(0)
        took = seconds({"loader": lambda: next(batches), "training": lambda: step(given)}, setting.repeats, clock=own_time)
    table = Table("pictures/s", "", title=f"32×32, batch {batch}, a thread each")
    for name, each in took.items():
        table.add_row(f"{name}, {chosen(True)}" if name == "training" else f"{name}, PNG files in tars", f"{batch / each:,.0f}")
    yield table
    yield Goal("the loader against training", took["training"] / took["loader"], 3.0, 3.0)


def _picture(number: int) -> np.ndarray:
    """A picture [32, 32, 3] whose PNG file is about as long as a photo's: soft patches under noise."""
    rng = np.random.default_rng(number)
    soft = Image.fromarray(rng.integers(0, 256, (8, 8, 3), np.uint8)).resize((32, 32), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(soft) + rng.integers(-8, 9, (32, 32, 3)), 0, 255).astype(np.uint8)
