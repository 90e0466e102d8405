"""Training: `train` a preset, `distill` a model into one of few steps, `ablate` a preset's network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from lodestar.cli.options import LAST_SEED, PICTURES, Device, ExtractorName, Out, Reference, flattened, show
from lodestar.config import BATCH, COUNT, TIMESTEPS
from lodestar.files import spelled

if TYPE_CHECKING:
    from lodestar.python.train import Changes

Overrides = Annotated[list[str] | None, typer.Argument(help="Settings to change: train.optimizer.rate=2e-4 …")]
Data = Annotated[str | None, typer.Option("--data", help=PICTURES)]
Images = Annotated[
    int | None, typer.Option("--images", min=1, max=10**12, help="Images to see before the run ends, repeats counted.")
]


@dataclass(frozen=True)
class Training:
    """Options of every command that trains. `flattened` adds them to a command; the values here are their defaults."""

    validation: Annotated[str | None, typer.Option("--validation", help="Held-out pictures to report numbers on.")] = None
    batch_size: Annotated[int | None, typer.Option("--batch-size", min=1, max=BATCH, help="Pictures at once.")] = None
    seed: Annotated[int | None, typer.Option("--seed", min=0, max=LAST_SEED, help="Seed of weights, data order, noise.")] = None
    skip_bad: Annotated[bool, typer.Option("--skip-bad", help="Skip and count pictures that cannot be read.")] = False
    device: Device = None
    out: Out = None

    def changes(self, data: str | None, images: int | None, init: str | None = None) -> Changes:
        """Changes to a run by these options, as keywords of the function of Python."""
        return {
            "data": data, "validation": self.validation, "images": images, "batch_size": self.batch_size, "seed": self.seed,
            "init": init, "skip_bad": self.skip_bad,
        }  # fmt: skip


@dataclass(frozen=True)
class Comparing:
    """Options of measuring the trained models: the reference and the extractor."""

    reference: Reference = None
    extractor: ExtractorName = None


@flattened
def train(
    run: Annotated[str, typer.Argument(help="A preset: cifar10, digits, adm.imagenet64, iddpm.cifar10, …")],
    overrides: Overrides = None,
    data: Data = None,
    images: Images = None,
    init: Annotated[
        str | None, typer.Option("--init", help="Begin with the weights of this model (a name, run or file) where they fit.")
    ] = None,
    codec: Annotated[
        str | None, typer.Option("--codec", help="Train in the latents of this autoencoder (a run or file).")
    ] = None,
    against: Annotated[
        str | None, typer.Option("--against", help="Tell real pictures from those of this diffusion model (a name, run or file).")
    ] = None,
    codes: Annotated[
        str | None, typer.Option("--codes", help="Train a prior of the codes of this VQ-VAE (a run or file).")
    ] = None,
    shard: Annotated[
        str | None, typer.Option("--shard", help="full: weights and all that goes with them in shards over torchrun's processes.")
    ] = None,
    training: Training = Training(),
) -> None:
    """Train a preset on your pictures. The same command again resumes."""
    from lodestar.python.train import trained

    changes = training.changes(data, images, init)
    changes |= {"codec": codec, "against": against, "codes": codes, "shard": shard}
    trained(run, *(overrides or ()), out=training.out, device=training.device, **changes)


@flattened
def distill(
    teacher: Annotated[str, typer.Argument(help="The model to distil: a run's folder, a file, or an embedded one.")],
    data: Annotated[str, typer.Option("--data", help=PICTURES)],
    overrides: Overrides = None,
    first: Annotated[
        int, typer.Option("--from", min=2, max=TIMESTEPS, help="DDIM steps of the teacher, halved in every stage.")
    ] = 512,
    last: Annotated[int, typer.Option("--to", min=1, max=TIMESTEPS, help="Steps of the last student.")] = 1,
    images: Annotated[
        int | None, typer.Option("--images", min=1, max=10**12, help="Images to see in each stage, repeats counted.")
    ] = None,
    count: Annotated[
        int | None, typer.Option("--count", min=1, max=COUNT, help="Pictures to measure each stage by; default: no measuring.")
    ] = None,
    comparing: Comparing = Comparing(),
    training: Training = Training(),
) -> None:
    """Distil a model into students of half as many steps, stage after stage. The same command again resumes."""
    from lodestar import bundle, library
    from lodestar.evaluation.reference import choose_extractor, open_reference
    from lodestar.progress import error_console
    from lodestar.python.train import paths
    from lodestar.training import distill as stages

    run = stages.settings(teacher, first, [paths(training.changes(data, images)), *(overrides or ())])
    folder, device = training.out or Path("runs") / f"distill-{Path(teacher).stem}", training.device
    measured_with = theirs = None
    if count is not None:
        measured_with = choose_extractor(comparing.extractor, comparing.reference, device)
        spec = comparing.reference if comparing.reference or teacher in bundle.embedded() else data
        theirs = open_reference(spec, teacher, measured_with, library.config(teacher).size)
    stages.distill(run, teacher, first, last, folder, error_console(), device)
    if count is not None and measured_with is not None and theirs is not None:
        rows = stages.measure(folder, teacher, first, last, theirs, measured_with, count=count, device=device)
        show(stages.table(rows, teacher))
    print(spelled(folder))


@flattened
def ablate(
    preset: Annotated[str, typer.Argument(help="A preset of a diffusion model: cifar10, digits, …")],
    images: Annotated[int, typer.Option("--images", min=1, max=10**12, help="Images that each variant sees, repeats counted.")],
    overrides: Overrides = None,
    variant: Annotated[
        list[str] | None,
        typer.Option("--variant", help="A variant to train; default all. Repeatable; the base is always trained."),
    ] = None,
    data: Data = None,
    count: Annotated[
        int, typer.Option("--count", min=1, max=COUNT, help="How many pictures to measure each variant by.")
    ] = 2_000,
    comparing: Comparing = Comparing(),
    training: Training = Training(),
) -> None:
    """Train a table of small variants of a preset's network under one budget, beside the ADM paper's. Again resumes."""
    from lodestar.evaluation.reference import choose_extractor, open_reference
    from lodestar.progress import error_console
    from lodestar.python.train import configured
    from lodestar.training import ablate as variants
    from lodestar.training.inputs import open_data

    run = configured(preset, *(overrides or ()), **training.changes(data, images))
    measured_with = choose_extractor(comparing.extractor, comparing.reference, training.device)
    size = run.data.transforms.result_size(open_data(run)[0].size)
    theirs = open_reference(comparing.reference or run.data.source, None, measured_with, size)
    folder = training.out or Path("runs") / f"ablate-{preset}"
    rows = variants.ablate(
        run, folder, theirs, measured_with, error_console(), names=variant or (), count=count, device=training.device
    )
    show(variants.table(rows))
    for row in rows:
        print(f"{row['variant']}: {row['change']}")
    print(spelled(folder / variants.TABLE))
