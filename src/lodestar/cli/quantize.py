"""`quantize`: ranges of activations, for sampling in 8 bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import LAST_SEED, PICTURES, BatchSize, Device, Model, show
from lodestar.config import COUNT


def quantize(
    model: Model,
    data: Annotated[str, typer.Option("--data", help=f"Pictures to noise, such as those of training. {PICTURES}")],
    out: Annotated[Path, typer.Option("--out", help="The new model's file, NAME.safetensors.")],
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to look at.")] = 256,
    steps: Annotated[str, typer.Option("--steps", help="The plan at whose levels ranges are taken.")] = "linspace:11",
    seed: Annotated[int, typer.Option("--seed", min=0, max=LAST_SEED, help="Seed of the choice of pictures, and of noise.")] = 0,
    batch_size: BatchSize = 32,
    device: Device = None,
) -> None:
    """Find the ranges of a model's activations, and write it with them: with --precision int8 it samples in 8 bits.

    Relative errors of the model's estimates are shown by noise level. In the other number formats the new model's pictures are
    the old one's.
    """
    from lodestar.python.quantize import quantized

    path, errors = quantized(model, data, out, count=count, steps=steps, seed=seed, batch_size=batch_size, device=device)
    show(errors)
    print(path)
