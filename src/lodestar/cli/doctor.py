"""`doctor`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.options import PICTURES, Device
from lodestar.config import COUNT


def doctor(
    paths: Annotated[list[str] | None, typer.Argument(help="Models, runs' folders or files, whose checkpoints are read.")] = None,
    data: Annotated[list[str] | None, typer.Option("--data", help=f"Pictures to read some of: {PICTURES} Repeatable.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="Pictures of each data set that are read.")] = 100,
    device: Device = None,
) -> None:
    """Examine this machine, data and checkpoints, a finding a line. The status is 2 if anything is broken."""
    from lodestar.doctor import examine

    broken = False
    for finding in examine(device, data or (), paths or (), count):
        print(finding, flush=True)
        broken |= finding.broken
    if broken:
        raise typer.Exit(2)
