"""`fit`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.options import PICTURES, Device, show
from lodestar.cli.train import Overrides
from lodestar.config import BATCH


def fit(
    run: Annotated[str, typer.Argument(help="A preset: cifar10, digits, adm.imagenet64, …")],
    overrides: Overrides = None,
    data: Annotated[
        str | None, typer.Option("--data", help=f"{PICTURES} Default: random pictures of the preset's size and classes.")
    ] = None,
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, max=BATCH, help="Pictures at once.")] = None,
    precision: Annotated[
        str | None, typer.Option("--precision", help="Number format: float32 or bfloat16; default the fastest here.")
    ] = None,
    processes: Annotated[int, typer.Option("--processes", min=1, max=100_000, help="Processes that share a batch.")] = 1,
    memory: Annotated[
        float | None, typer.Option("--memory", min=0.001, max=1e6, help="GiB of memory to fit into; default all of the device.")
    ] = None,
    device: Device = None,
) -> None:
    """Forecast the memory of a run, the most pictures at once that fit, and the time to its end, from a few steps here."""
    from lodestar.python.train import configured
    from lodestar.training.fit import forecast

    settings = [*(overrides or ()), *([f"train.precision={precision}"] if precision else [])]
    asked = configured(run, *settings, data=data, batch_size=batch_size)
    size = None if memory is None else int(memory * 2**30)
    found = forecast(asked, device, noise=data is None, processes=processes, memory=size)
    show(found.table())
    print(found.told())
