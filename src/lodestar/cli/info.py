"""`info`."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.options import show


def info(name: Annotated[str, typer.Argument(help="An embedded model, a run's folder, or a file.")]) -> None:
    """Tell what a model or a run is, without loading it."""
    from lodestar.info import describe

    show(describe(name))
