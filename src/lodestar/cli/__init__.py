"""The command line, a file for each family of commands, which import what they need when they run: help is there at once."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli import (
    compare,
    convert,
    data,
    demo,
    doctor,
    edit,
    evaluate,
    export,
    fit,
    info,
    plan,
    play,
    plot,
    quantize,
    reproduce,
    sample,
    train,
    unclip,
    upsample,
)
from lodestar.cli.options import ModelNamed, ready
from lodestar.cli.plugin import load_plugin

app = typer.Typer(
    help="Guided diffusion of images: train, sample, guide and measure.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


@app.callback(invoke_without_command=True)
def _main(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    plugin: Annotated[
        list[str] | None,
        typer.Option("--plugin", help="A module or a .py file with parts of your own, before the command. Repeatable."),
    ] = None,
) -> None:
    if version:
        from lodestar import __version__

        print(f"lodestar {__version__}")
        raise typer.Exit
    for name in plugin or ():
        load_plugin(name)


_COMMANDS = (
    sample.sample,
    sample.remake,
    upsample.upsample,
    demo.demo,
    train.train,
    train.distill,
    train.ablate,
    data.label,
    data.pack,
    evaluate.evaluate,
    evaluate.stats,
    evaluate.sweep,
    compare.compare,
    plan.plan,
    play.play,
    reproduce.reproduce,
    convert.convert,
    quantize.quantize,
    export.export,
    info.info,
    fit.fit,
    doctor.doctor,
)
for _command in _COMMANDS:
    app.command(cls=ModelNamed)(ready(_command))
for _command in (unclip.vary, unclip.blend, unclip.textdiff, unclip.components):
    edit.app.command(cls=ModelNamed)(ready(_command))
app.add_typer(edit.app, name="edit")
app.add_typer(plot.app, name="plot")
