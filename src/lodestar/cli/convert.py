"""`convert`: published checkpoints of other projects as models of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Out


def convert(
    source: Annotated[
        str, typer.Argument(help="A .pt file, a published model to fetch (openai/adm-64), or a folder of diffusers.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="Which published model the file is, where its name does not tell: openai/adm-64.")
    ] = None,
    out: Out = None,
) -> None:
    """Convert a published checkpoint into one file with its configuration, in models/ unless told otherwise."""
    from lodestar.config import Problem, nearest
    from lodestar.convert import FAMILIES, diffusers
    from lodestar.convert.published import by_name
    from lodestar.convert.run import convert
    from lodestar.presets import PUBLISHED

    path = Path(source)
    if path.is_dir():
        if name is not None:
            raise Problem(f"--as {name} is for a file whose name does not tell: a folder of diffusers tells everything")
        print(diffusers.convert(path, out or Path("models")))
        return
    if not path.is_file():
        if path.suffix == ".pt":
            beside = [str(each) for each in path.parent.glob("*.pt")]
            raise Problem(f"no file {source!r}{nearest(source, beside)}")
        published = by_name(source, PUBLISHED)
        if name is not None:
            raise Problem(f"--as {name} is for a file whose name does not tell: {source} is a name already")
        path = published.fetch()
        name = published.name
    converted = convert(path, out or Path("models"), FAMILIES, PUBLISHED, name)
    print(f"{path} is {converted.published.name}, {converted.parameters:,} parameters, SHA-256 {converted.sha256}")
    print(converted.path)
