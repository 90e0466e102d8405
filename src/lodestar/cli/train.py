"""`train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Device, Out


def train(
    run: Annotated[str, typer.Argument(help="A preset: cifar10, digits, adm.imagenet64, iddpm.cifar10, …")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change: train.optimizer.rate=2e-4 …")] = None,
    data: Annotated[
        str | None, typer.Option("--data", help="A parquet file, a folder (by class), hf:owner/name, or digits.")
    ] = None,
    validation: Annotated[str | None, typer.Option("--validation", help="Held-out pictures to report numbers on.")] = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, help="Images to see before the run ends, repeats counted.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, help="Pictures at once.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of weights, data order and noise.")] = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Begin with the weights of this model (a name, run or file) where they fit.")
    ] = None,
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count pictures that cannot be decoded.")] = False,
    device: Device = None,
    out: Out = None,
) -> None:
    """Train a preset on your pictures. The same command again resumes."""
    import json

    from lodestar.config import choose, edit
    from lodestar.presets import RUNS
    from lodestar.train.loop import train as loop

    given = {
        "data.source": data,
        "data.validation": validation,
        "data.held_out": None if validation is None else 0.0,
        "train.images": images,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "train.init": init,
    }
    settings = [f"{path}={json.dumps(value)}" for path, value in given.items() if value is not None]
    if skip_bad:
        settings.append("data.skip_bad=true")
    loop(edit(choose("run", run, RUNS)(), [*settings, *(overrides or [])]), out or Path("runs") / run, device=device)
