"""`convert`: published checkpoints of other projects as models of ours."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Out, SamplerText, Steps, parse_sampler


def convert(
    source: Annotated[
        str, typer.Argument(help="A .pt file, a published model to fetch (openai/adm-64), or a folder of diffusers.")
    ],
    name: Annotated[
        str | None, typer.Option("--as", help="Which published model the file is, where its name does not tell: openai/adm-64.")
    ] = None,
    flag: Annotated[
        list[str] | None,
        typer.Option("--flag", help="A flag that a file of your own was trained with: image_size=64. Repeat it."),
    ] = None,
    flags: Annotated[
        str | None,
        typer.Option(help="All of them: a command line of guided-diffusion or improved-diffusion, or a file that holds one."),
    ] = None,
    sampler: SamplerText = None,
    steps: Steps = None,
    out: Out = None,
) -> None:
    """Convert a foreign checkpoint into one file with its configuration, in models/ unless told otherwise.

    --sampler and --steps are what the model is sampled with afterwards, in the place of what its files say. With flags, --as
    names the code whose defaults count: guided-diffusion (unless told) or improved-diffusion.
    """
    from lodestar.config import Problem, nearest, short
    from lodestar.conversion import FAMILIES, diffusers
    from lodestar.conversion.flags import CODES, parse
    from lodestar.conversion.published import by_name
    from lodestar.conversion.run import convert
    from lodestar.files import check_writable
    from lodestar.presets import PUBLISHED

    path = Path(source)
    if path.is_dir():
        if name is not None:
            raise Problem(f"--as {name} is for a file whose name does not tell: a folder of diffusers tells everything")
        if flag or flags is not None:
            raise Problem("--flag and --flags are for a file of guided-diffusion: a folder of diffusers has its own settings")
        written, model = diffusers.convert(path, out or Path("models"), parse_sampler(sampler), steps)
        config = model.config
        print(f"{source} is a UNet2DModel of diffusers, sampled with {short(config.sampler)} in steps {config.steps}")
        print(written)
        return
    given = parse(flag or [], flags) if flag or flags is not None or name in CODES else None
    if not path.is_file():
        if path.suffix == ".pt":
            beside = [str(each) for each in path.parent.glob("*.pt")]
            raise Problem(f"no file {source!r}{nearest(source, beside)}")
        published = by_name(source, PUBLISHED)
        if given is not None:
            raise Problem(f"--flag and --flags are for a file of your own: {source} is published, and its flags are known")
        if name is not None:
            raise Problem(f"--as {name} is for a file whose name does not tell: {source} is a name already")
        check_writable((out or Path("models")) / f"{published.short}.safetensors")
        path = published.fetch()
        name = published.name
    converted = convert(path, out or Path("models"), FAMILIES, PUBLISHED, name, given, parse_sampler(sampler), steps)
    what = converted.published.name if given is None else f"a model of {name or converted.published.family.name} by its flags"
    print(f"{path} is {what}, {converted.parameters:,} parameters, SHA-256 {converted.sha256}")
    print(converted.path)
