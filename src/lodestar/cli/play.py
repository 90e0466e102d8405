"""`play`: the playground, a page on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Device, Precision


def play(
    folders: Annotated[list[Path] | None, typer.Argument(help="Folders of your runs, models and sweeps.")] = None,
    port: Annotated[int, typer.Option("--port", min=1, max=65_535, help="The port to listen on.")] = 7860,
    host: Annotated[
        str, typer.Option("--host", help="The address to listen on; 0.0.0.0 lets everybody in who reaches this machine.")
    ] = "127.0.0.1",
    limit: Annotated[
        list[str] | None,
        typer.Option(
            "--limit",
            help="NAME=VALUE: pictures, steps or seconds of a request; requests waiting, or of each client; megabytes or "
            "megapixels of an upload. Repeatable.",
        ),
    ] = None,
    device: Device = None,
    precision: Precision = None,
) -> None:
    """Open the playground: a page to sample, guide, edit and compare with, and its API."""
    from lodestar.config import edit
    from lodestar.web.page import serve
    from lodestar.web.requests import Limits
    from lodestar.web.shelf import Loading, Shelf

    shelf, limits = Shelf(folders or (), Loading(device, precision)), edit(Limits(), limit or ())
    serve(shelf, limits, host, port, started=lambda: print(f"http://{host}:{port}", flush=True))
