"""`plan`: the levels to visit in a few steps, optimised for a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import Model, Prompting, Solving, flattened, show
from lodestar.config import COUNT


@dataclass(frozen=True)
class Planning(Solving):
    """Options of `plan`."""

    steps: Annotated[str | None, typer.Option("--steps", help="Numbers of steps, a plan for each.")] = "6,8,10,12"
    fine: Annotated[str, typer.Option("--fine", help="The plan of many steps whose pictures few steps are to end at.")] = (
        "trailing:100"
    )
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="How many pictures the plans are optimised for.")] = 64
    out: Annotated[
        Path | None, typer.Option("--out", help="A model's file to write instead of the model's own, NAME.safetensors.")
    ] = None


@flattened
def plan(model: Model, planning: Planning = Planning(), prompting: Prompting = Prompting()) -> None:
    """Optimise the plans of few steps for a model and a sampler, and put them into the model's card, for --steps optimized:8."""
    from lodestar import library
    from lodestar.bundle import embedded
    from lodestar.config import Problem
    from lodestar.generators.request import settings
    from lodestar.python.plan import plan as optimise

    numbers = [part.strip() for part in (planning.steps or "").split(",")]
    if not all(part.isdecimal() and len(part) < 10 for part in numbers):
        raise Problem(f"--steps {planning.steps!r}: numbers of steps, such as 6,8,10,12")
    if planning.out is None and (model.startswith("hf:") or model in embedded()):
        whose = "a file of the hub" if model.startswith("hf:") else "embedded in this package"
        raise Problem(f"{model} is {whose}: name a file of your own with --out")
    prompts = prompting.prompts()
    network = library.load_diffusion(model, planning.device, planning.precision)
    reference = network.reference(prompting.reference) if prompting.reference else None
    guides = planning.guides(model, settings(guidance=planning.guidance or ()).guidance, reference)
    found = optimise(
        network, [int(part) for part in numbers], guides=guides, fine=planning.fine, count=planning.count,
        batch_size=planning.batch_size, out=planning.out or library.find(model), prompt=prompts.texts or None,
        cut_prompt=prompts.cut, style=prompts.styles or None, sampler=planning.sampler, guidance=planning.guidance or (),
        clamp=planning.clamp,
    )  # fmt: skip
    for each in found.plans:
        print(f"optimized:{each.steps} is {each.plan}")
    show(found.table())
    print(found.file)
