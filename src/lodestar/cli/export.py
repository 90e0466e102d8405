"""`export`: models for other libraries, and for a hub."""

from __future__ import annotations

from typing import Annotated

import typer

from lodestar.cli.options import Model, SamplerText, Steps


def export(
    model: Model,
    out: Annotated[str, typer.Argument(help="The folder to write; for a hub, owner/repository.")],
    to: Annotated[
        str, typer.Option("--to", help="diffusers (a folder that its DDPMPipeline or UNet2DModel loads), or hub.")
    ] = "diffusers",
    sampler: SamplerText = None,
    steps: Steps = None,
    private: Annotated[bool, typer.Option("--private", help="Make the repository of the hub private, if it is new.")] = False,
) -> None:
    """Write a model for diffusers, or put it on a hub, from where `hf:owner/repository` loads it.

    diffusers' scheduler is the one that samples as the model does, or as --sampler and --steps say.
    """
    from pathlib import Path

    from lodestar import library
    from lodestar.config import Problem, choose

    target = choose("--to", to, {"diffusers": "diffusers", "hub": "hub"})
    if target == "hub":
        if sampler is not None or steps is not None:
            raise Problem("--sampler and --steps choose a scheduler of diffusers: a hub is given the model as it is")
        print(library.push_to_hub(model, out, private=private))
        return
    if private:
        raise Problem("--private is about repositories of a hub: it has no effect with --to diffusers")
    from lodestar.conversion import diffusers
    from lodestar.generators.request import settings

    how = settings(sampler=sampler, steps=steps)
    form = diffusers.export(library.load_diffusion(model, "cpu"), Path(out), how.sampler, how.steps)
    print(f"{model} as {form}")
    print(out)
