"""Comparing models: `compare` trains what is missing, measures all, and draws the trilemma."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import PICTURES, BatchSize, Device, Out, Seed, flattened, show
from lodestar.cli.train import Comparing, Images
from lodestar.config import COUNT
from lodestar.files import spelled


@dataclass(frozen=True)
class Budget:
    """Options of training presets."""

    images: Images = None
    seconds: Annotated[
        float | None, typer.Option("--seconds", min=0.1, max=10**9, help="Or about this time of training steps for each preset.")
    ] = None
    data: Annotated[str | None, typer.Option("--data", help=f"To train presets on; default their own. {PICTURES}")] = None
    validation: Annotated[
        str | None, typer.Option("--validation", help="Held-out pictures to measure against; default a fifth of the data.")
    ] = None


@flattened
def compare(
    models: Annotated[
        list[str],
        typer.Argument(
            help="Presets, runs, files and embedded models, with settings after commas: digits,steps=trailing:20 (also sampler, "
            "guidance, clamp, temperature, reuse, truncation, top_k, top_p, classifier=MODEL; of presets codec=, codes=, init=)."
        ),
    ],
    budget: Budget = Budget(),
    comparing: Comparing = Comparing(),
    captions: Annotated[
        str | None, typer.Option("--captions", help="Data whose captions are the prompts, as in evaluate.")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to sample of each model.")] = 2_000,
    seed: Seed = 0,
    batch_size: BatchSize = 64,
    device: Device = None,
    out: Out = Path("out/compare"),
) -> None:
    """Compare models by fidelity, diversity, speed and likelihood, after training what is missing. Again goes on."""
    from lodestar.evaluation.trilemma import PICTURE
    from lodestar.python.compare import compare

    folder = out or Path("out/compare")
    found = compare(
        models, comparing.reference, extractor=comparing.extractor, captions=captions, count=count, seed=seed,
        batch_size=batch_size, device=device, out=folder, **asdict(budget),
    )  # fmt: skip
    show(found.table())
    print(spelled(folder / PICTURE))
