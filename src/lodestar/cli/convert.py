"""`convert`: published checkpoints of other projects as models of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Out, SamplerText, Steps
from lodestar.files import spelled


def convert(
    source: Annotated[
        str, typer.Argument(help="A .pt file, a published model to fetch (openai/adm-64), or a folder of diffusers.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="The published model in the file, where its name does not tell: openai/adm-64.")
    ] = None,
    flag: Annotated[
        list[str] | None,
        typer.Option("--flag", help="A flag that a file of your own was trained with: image_size=64. Repeat it."),
    ] = None,
    flags: Annotated[
        str | None,
        typer.Option(help="All flags: a command line of guided-diffusion or improved-diffusion, or a file that holds one."),
    ] = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    out: Out = None,
) -> None:
    """Convert a foreign checkpoint into one file with its configuration, in models/ unless told otherwise.

    --sampler and --steps are settings of the model's later sampling, in the place of those in its files. With flags, --as names
    the code whose defaults count: guided-diffusion (unless told) or improved-diffusion.
    """
    from lodestar.conversion.flags import parse
    from lodestar.python.convert import converted

    given = parse(flag or [], flags) if flag or flags is not None else None
    path, what = converted(source, out or Path("models"), name, given, sampler, steps)
    print(what)
    print(spelled(path))
