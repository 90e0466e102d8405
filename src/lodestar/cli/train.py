"""Training: `train` a preset, `distill` a model into one of few steps, `ablate` a preset's network."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from lodestar.cli.options import LAST_SEED, PICTURES, Device, ExtractorName, Out, Reference, show
from lodestar.config import BATCH, COUNT, TIMESTEPS

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings to change: train.optimizer.rate=2e-4 …")]
Data = Annotated[str | None, typer.Option("--data", help=PICTURES)]
Validation = Annotated[str | None, typer.Option("--validation", help="Held-out pictures to report numbers on.")]
Images = Annotated[
    int | None, typer.Option("--images", min=1, max=10**12, help="Images to see before the run ends, repeats counted.")
]
TrainBatchSize = Annotated[int | None, typer.Option("--batch-size", min=1, max=BATCH, help="Pictures at once.")]
TrainSeed = Annotated[int | None, typer.Option("--seed", min=0, max=LAST_SEED, help="Of weights, data order and noise.")]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help="Skip and count pictures that cannot be decoded.")]


def train(
    run: Annotated[str, typer.Argument(help="A preset: cifar10, digits, adm.imagenet64, iddpm.cifar10, …")],
    overrides: Overrides = None,
    data: Data = None,
    validation: Validation = None,
    images: Images = None,
    batch_size: TrainBatchSize = None,
    seed: TrainSeed = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Begin with the weights of this model (a name, run or file) where they fit.")
    ] = None,
    skip_bad: SkipBad = False,
    device: Device = None,
    out: Out = None,
) -> None:
    """Train a preset on your pictures. The same command again resumes."""
    import json

    from lodestar.config import choose, edit
    from lodestar.presets import RUNS
    from lodestar.training.loop import train as loop

    begin = [] if init is None else [f"train.init={json.dumps(init)}"]
    changes = [*begin, *_changes(data, validation, images, batch_size, seed, skip_bad, overrides)]
    loop(edit(choose("run", run, RUNS)(), changes), out or Path("runs") / run, device=device)


def distill(
    teacher: Annotated[str, typer.Argument(help="The model to distil: a run's folder, a file, or an embedded one.")],
    data: Annotated[str, typer.Option("--data", help=PICTURES)],
    overrides: Overrides = None,
    first: Annotated[
        int, typer.Option("--from", min=2, max=TIMESTEPS, help="DDIM steps of the teacher, halved in every stage.")
    ] = 512,
    last: Annotated[int, typer.Option("--to", min=1, max=TIMESTEPS, help="Steps of the last student.")] = 1,
    validation: Validation = None,
    images: Annotated[
        int | None, typer.Option("--images", min=1, max=10**12, help="Images to see in each stage, repeats counted.")
    ] = None,
    batch_size: TrainBatchSize = None,
    seed: TrainSeed = None,
    skip_bad: SkipBad = False,
    count: Annotated[
        int | None, typer.Option("--count", min=1, max=COUNT, help="Measure each stage by so many pictures; left out: none.")
    ] = None,
    reference: Reference = None,
    extractor: ExtractorName = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Distil a model into students of half as many steps, stage after stage. The same command again resumes."""
    from rich.console import Console

    from lodestar import library
    from lodestar.evaluation import extractors
    from lodestar.evaluation.reference import open_reference
    from lodestar.training import distill as stages

    run = stages.settings(teacher, first, _changes(data, validation, images, batch_size, seed, skip_bad, overrides))
    folder = out or Path("runs") / f"distill-{Path(teacher).stem}"
    measured_with = theirs = None
    if count is not None:
        measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
        spec = reference if reference or teacher in library.embedded() else data
        theirs = open_reference(spec, teacher, measured_with, library.config(teacher).size)
    stages.distill(run, teacher, first, last, folder, Console(stderr=True), device)
    if count is not None and measured_with is not None and theirs is not None:
        rows = stages.measure(folder, teacher, first, last, theirs, measured_with, count=count, device=device)
        show(stages.table(rows, teacher))
    print(folder)


def ablate(
    preset: Annotated[str, typer.Argument(help="A preset of a diffusion model: cifar10, digits, …")],
    images: Annotated[int, typer.Option("--images", min=1, max=10**12, help="Images that each variant sees, repeats counted.")],
    overrides: Overrides = None,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="One of the variants; default all. Repeatable; the base is always there."),
    ] = None,
    data: Data = None,
    validation: Validation = None,
    batch_size: TrainBatchSize = None,
    seed: TrainSeed = None,
    skip_bad: SkipBad = False,
    count: Annotated[
        int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to measure each variant by.")
    ] = 2_000,
    reference: Reference = None,
    extractor: ExtractorName = None,
    device: Device = None,
    out: Out = None,
) -> None:
    """Train a table of small variants of a preset's network under one budget, beside the ADM paper's. Again resumes."""
    from rich.console import Console

    from lodestar.config import choose, edit
    from lodestar.evaluation import extractors
    from lodestar.evaluation.reference import open_reference
    from lodestar.presets import RUNS
    from lodestar.training import ablate as variants
    from lodestar.training.inputs import open_data

    run = edit(choose("run", preset, RUNS)(), _changes(data, validation, images, batch_size, seed, skip_bad, overrides))
    measured_with = extractors.load_extractor(extractor or extractors.DEFAULT, device)
    size = run.data.transforms.result_size(open_data(run)[0].size)
    theirs = open_reference(reference or run.data.source, None, measured_with, size)
    folder = out or Path("runs") / f"ablate-{preset}"
    rows = variants.ablate(
        run, folder, theirs, measured_with, Console(stderr=True), names=variant or (), count=count, device=device
    )
    show(variants.table(rows))
    for row in rows:
        print(f"{row['variant']}: {row['change']}")
    print(folder / variants.TABLE)


def _changes(
    data: str | None,
    validation: str | None,
    images: int | None,
    batch_size: int | None,
    seed: int | None,
    skip_bad: bool,
    overrides: list[str] | None,
) -> list[str]:
    """The options, and after them the overrides, as overrides of a run."""
    import json

    given = {
        "data.source": data,
        "data.validation": validation,
        "data.held_out": None if validation is None else 0.0,
        "train.images": images,
        "train.batch_size": batch_size,
        "train.seed": seed,
        "data.skip_bad": skip_bad or None,
    }
    return [*(f"{path}={json.dumps(value)}" for path, value in given.items() if value is not None), *(overrides or [])]
