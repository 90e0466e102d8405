"""`info`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.options import show


def info(
    name: Annotated[str | None, typer.Argument(help="An embedded model, a run's folder, or a file.")] = None,
    device: Annotated[
        bool, typer.Option("--device", help="Show this machine instead: its processor, and the measured speed of number formats.")
    ] = False,
) -> None:
    """Describe a model or a run without loading it, or this machine."""
    from lodestar.config import Problem
    from lodestar.info import describe, machine

    if (name is None) != device:
        raise Problem("info needs a model, a run or a file, or --device" + (", and not both" if device else ""))
    for table in machine() if name is None else (describe(name),):
        show(table)
